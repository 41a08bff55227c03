# SPDX-License-Identifier: GPL-2.0
# gnuplot -c caught.gp OUT: how long before the first packet was lost the warning was
# received, and how many packets came in between; see caught.py.
set terminal svg size 900,340 font "sans,13" background "white"
set output ARG1
set multiplot layout 1,2
set border 3
set tics nomirror
set grid ytics lc rgb "#dddddd"
set yrange [0:100]
set ylabel "% of the bursts that lost packets"
set key left top Left reverse samplen 2
set xlabel "warning this many ms before the first loss, or more"
set logscale x
set xrange [0.05:100]
plot "caught-ahead-ms.dat" using 1:2 with steps lw 2 lc rgb "#c0392b" title "khealthd"
set xlabel "this many packets before the first loss, or more"
unset logscale x
set xrange [0:*]
set ylabel ""
plot "caught-ahead-packets.dat" using 1:2 with steps lw 2 lc rgb "#c0392b" title "khealthd"
