# SPDX-License-Identifier: GPL-2.0
# gnuplot -c picture.gp OUT: a burst at a glance; see picture.c.
load "picture.vars"
set terminal svg size 900,420 font "sans,13" background "white"
set output ARG1
set xrange [0:20.4]
set yrange [-4:124]
set xlabel "seconds"
set ylabel "free space of the receive buffer, %"
set ytics 0,25,100
set xtics 0,2,20
set border 3
set tics nomirror
unset key
low_mark = 12
high_mark = 25
set object 1 rectangle from graph 0, first 0 to graph 1, first low_mark fc rgb "#fbe3df" fs solid noborder behind
set arrow 1 from graph 0, first high_mark to graph 1, first high_mark nohead dt 2 lc rgb "#999999"
set arrow 2 from graph 0, first low_mark to graph 1, first low_mark nohead dt 2 lc rgb "#c0392b"
set label 1 "high watermark" at 20.3, high_mark + 4 right tc rgb "#777777" font "sans,11"
set label 2 "low watermark" at 20.3, low_mark - 5 right tc rgb "#c0392b" font "sans,11"

set arrow 3 from low, 104 to low, low_mark + 1 lw 2 lc rgb "#c0392b"
set label 3 sprintf("low: the alert, %d ms before", ahead_ms) at low, 109 center tc rgb "#c0392b"
set arrow 4 from exhausted, 72 to exhausted, 2 lw 2 lc rgb "#7b1fa2"
set label 4 "exhausted:\nthe first\npacket is\nlost" at exhausted + 0.12, 70 left tc rgb "#7b1fa2" font "sans,11"
set arrow 6 from recovered, 76 to recovered, 98 lw 2 lc rgb "#1e8449"
set label 6 sprintf("recovered:\n%d were lost in all", losses) at recovered, 70 center tc rgb "#1e8449" font "sans,11"
set label 7 "not near the watermark:\nnothing is sent" at 16.6, 58 center tc rgb "#777777" font "sans,11"
set label 8 "what a poller saw that looks every 10 s" at 20.3, 119 right tc rgb "#1f618d" font "sans,11"
set label 9 "100 % free" at 0.1, 108 left tc rgb "#1f618d" font "sans,11"
set label 10 sprintf("100 %% free,\na counter\nis %d up", losses) at 10.1, 90 center tc rgb "#1f618d" font "sans,11"
set label 11 "100 % free" at 20.3, 108 right tc rgb "#1f618d" font "sans,11"
plot "picture.dat" using 1:2 with steps lw 2 lc rgb "#2c3e50", \
	"+" using (lost):(0) every 1::0::0 with points pt 2 ps 1.6 lw 3 lc rgb "#7b1fa2", \
	"picture-polls.dat" using 1:2 with points pt 6 ps 1.4 lw 2 lc rgb "#1f618d"
