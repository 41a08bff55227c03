#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Finish the mails that git format-patch wrote to a folder.

Their Message-IDs become the same each time, long headers stay in one line (b4
0.12 falls over a folded From), those whom the kernel's MAINTAINERS name are
written to, and the cover letter gets its text.
"""

import argparse
import email.utils
import os
import pathlib
import re
import subprocess


def unfold(header):
    return re.sub(r'\n[ \t]+', ' ', header)


OF_GIT = r'<(\w+)\.\d+\.git\.([^<>]*)>'


def same_each_time(header, names, number):
    """git takes the commit and the time of day: <cover.TIME.git.MAIL>,
    <COMMIT.TIME.git.MAIL>; we the number of the mail."""
    return re.sub(OF_GIT, lambda m: f'<{names[m[1]]}.{number}.{m[2]}>', header)


def declared(header, body):
    """git declares what a log says, and not what is in the files."""
    if body.isascii() or 'Content-Type:' in header:
        return header
    return (f'{header}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n'
            'Content-Transfer-Encoding: 8bit')


def encoded(address):
    return email.utils.formataddr(email.utils.parseaddr(address))


def maintainers(tree, mail):
    """Who cares for the files of a patch: lists in To, people in Cc."""
    out = subprocess.run(
        ['perl', 'scripts/get_maintainer.pl', '--no-git', '--no-git-fallback',
         '--no-moderated', mail],
        cwd=tree, check=True, capture_output=True, text=True,
        env=os.environ | {'PERL_HASH_SEED': '0', 'PERL_PERTURB_KEYS': '0'}).stdout
    lists, people = [], []
    for line in out.splitlines():
        # "NAME <ADDRESS> (ROLE)" or "ADDRESS (open list:SUBSYSTEM)"
        who, role = re.fullmatch(r'(.*?) \((.*)\)', line).groups()
        if 'list' in role.split(':')[0]:
            lists.append(who)
        else:
            people.append(who)
    return lists, people


def addressed(header, lists, people):
    for name, whom in (('To', lists), ('Cc', people)):
        if whom:
            header += f'\n{name}: ' + ',\n '.join(encoded(who) for who in whom)
    return header


def with_letter(header, body, path):
    subject, letter = pathlib.Path(path).read_text().split('\n', 1)
    header = header.replace('*** SUBJECT HERE ***', subject)
    body = body.replace('*** BLURB HERE ***', letter.strip())
    return header, body


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--id', required=True, help='what tells this series from others')
    parser.add_argument('--cover', help='a file: a subject, and a letter')
    parser.add_argument('--maintainers', help='a kernel tree that says whom to write to')
    parser.add_argument('dir', type=pathlib.Path)
    args = parser.parse_args()

    mails = sorted(args.dir.glob('0*'))
    everybody = [], []
    names = {re.search(f'^Message-I[Dd]: {OF_GIT}', mail.read_text(), re.M)[1]: mail.name[:4]
             for mail in mails}
    # The cover letter comes last: it goes to all.
    for mail in sorted(mails, key=lambda mail: mail.name.startswith('0000-')):
        header, body = mail.read_text().split('\n\n', 1)
        start, header = header.split('\n', 1)
        header = declared(same_each_time(unfold(header), names, args.id), body)
        is_cover = mail.name.startswith('0000-')
        if is_cover:
            header, body = with_letter(header, body, args.cover)
            # Of all names, git leaves this one as it is.
            header = re.sub(r'^From: (.*)', lambda who: f'From: {encoded(who[1])}',
                            header, flags=re.M)
        if args.maintainers:
            whom = everybody if is_cover else maintainers(args.maintainers, mail.resolve())
            header = addressed(header, *whom)
            for known, new in zip(everybody, whom):
                known += [who for who in new if who not in known]
        mail.write_text(f'{start}\n{header}\n\n{body}')


if __name__ == '__main__':
    main()
