#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Put an entry into a kernel's MAINTAINERS, where parse-maintainers.pl wants it.

MAINTAINERS is not strictly sorted: the first title that is greater may stand
anywhere. So that script sorts all of it, and the entry goes before the one that
follows it then.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

LAST = '\nTHE REST\n'


def title_after(text, title):
    titles = re.findall(r'\n\n(\S.*)\n[A-Z]:\t', text)
    return titles[titles.index(title) + 1]


def main():
    maintainers, entry, script = (pathlib.Path(arg) for arg in sys.argv[1:])
    text, entry = maintainers.read_text(), entry.read_text() + '\n'
    with tempfile.TemporaryDirectory() as scratch:
        unsorted, result = (pathlib.Path(scratch, name) for name in ('in', 'out'))
        unsorted.write_text(text.replace(LAST, f'\n{entry}{LAST[1:]}'))
        subprocess.run(['perl', script.resolve(), f'--input={unsorted}', f'--output={result}'],
                       cwd=scratch, check=True)
        successor = f'\n{title_after(result.read_text(), entry.split(chr(10))[0])}\n'
    if text.count(successor) != 1:
        sys.exit(f'{maintainers}: no place for the entry, before {successor.strip()}')
    maintainers.write_text(text.replace(successor, f'\n{entry}{successor[1:]}'))


if __name__ == '__main__':
    main()
