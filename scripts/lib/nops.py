#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Usage: nops.py ON OFF FUNCTION[:SLACK]...

Check that khealthd's hooks in FUNCTIONs are nothing but a NOP while it is
disabled. ON and OFF are object files of the same source, with CONFIG_KHEALTHD
and without it.

A function is walked from its entry as the CPU walks it while all jump labels
are in their initial position; but not where an allocation has failed already.
With the option there may be as many instructions more on the way as there are
hooks, each of these has to be a NOP, and no function more may be called. SLACK
more instructions are let pass, where a look at the disassembly has shown that
they are the compiler's: another choice of registers, a return that is not shared.
A hook in any other function of the file is an error.
"""
import re
import subprocess
import sys

from elftools.elf.elffile import ELFFile

# Static keys are in the monitors, whose names begin with this.
KEY = "khealthd_"
FAILED = "__khealthd_skb_refused"


def object_of(symbols, reloc):
    """Return the name of the object that a relocation points into."""
    symbol = symbols.get_symbol(reloc["r_info_sym"])
    if symbol.name:
        return symbol.name
    # A static one: what is known is its place in a section.
    for other in symbols.iter_symbols():
        start = other["st_value"]
        if other["st_info"]["type"] == "STT_OBJECT" and \
           other["st_shndx"] == symbol["st_shndx"] and \
           start <= reloc["r_addend"] < start + other["st_size"]:
            return other.name
    return ""


def jump_labels(path):
    """Return {(section, offset): key} from __jump_table's relocations."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        relocs = elf.get_section_by_name(".rela__jump_table")
        if not relocs:
            return {}
        symbols = elf.get_section(relocs["sh_link"])
        labels = {}
        entries = sorted(relocs.iter_relocations(), key=lambda r: r["r_offset"])
        # An entry is: code, target, key, each with one relocation.
        for code, _, key in zip(*[iter(entries)] * 3):
            symbol = symbols.get_symbol(code["r_info_sym"])
            section = elf.get_section(symbol["st_shndx"]).name
            offset = symbol["st_value"] + code["r_addend"]
            labels[section, offset] = object_of(symbols, key)
        return labels


def functions(path):
    """Return {name: (section, [(address, mnemonic, operands, reloc)])}."""
    text = subprocess.run(["objdump", "-dr", "--no-show-raw-insn", path],
                          check=True, capture_output=True, text=True).stdout
    found, section, code = {}, None, None
    for line in text.splitlines():
        if match := re.match(r"Disassembly of section (.*):", line):
            section = match[1]
        elif match := re.match(r"[0-9a-f]+ <(.*)>:", line):
            code = []
            found[match[1]] = (section, code)
        elif match := re.match(r"\s+([0-9a-f]+):\t(\S+)\s*(.*)", line):
            if match[2].startswith("R_X86_64"):
                continue
            code.append((int(match[1], 16), match[2], match[3]))
        elif "R_X86_64" in line and code:
            address, mnemonic, operands = code[-1]
            code[-1] = (address, mnemonic, operands + " RELOC " + line.split()[-1])
    return found


def walk(section, code, labels):
    """Return the instructions on the way, and the labels among them."""
    index = {address: i for i, (address, _, _) in enumerate(code)}
    todo, after, hooks = [code[0][0]], {}, {}
    while todo:
        address = todo.pop()
        if address in after or address not in index:
            continue
        i = index[address]
        _, mnemonic, operands = code[i]
        following = [code[i + 1][0]] if i + 1 < len(code) else []
        label = labels.get((section, address))
        if label:
            hooks[address] = (label, mnemonic)
        if label and mnemonic.startswith(("nop", "xchg", "data16")):
            after[address] = following
        elif FAILED in operands:
            after[address] = [None]
        elif mnemonic.startswith("jmp"):
            after[address] = [] if "RELOC" in operands else [int(operands.split()[0], 16)]
        elif mnemonic.startswith(("ret", "ud2")):
            after[address] = []
        elif mnemonic.startswith("j") and "RELOC" not in operands:
            after[address] = following + [int(operands.split()[0], 16)]
        else:
            after[address] = following
        todo += [a for a in after[address] if a is not None]

    # Leave out what leads to nothing but the report of a failure.
    way = {a for a, nexts in after.items() if not nexts}
    grown = True
    while grown:
        more = {a for a, nexts in after.items() if a not in way and way & set(nexts)}
        grown = bool(more)
        way |= more

    # Padding costs the same, whoever caused it; and is not what is asked for.
    way = [code[index[a]] for a in way if a in hooks or
           not code[index[a]][1].startswith(("nop", "data16", "cs"))]
    return way, hooks


def hooked(code, labels):
    """Return the names of the functions that have a hook somewhere."""
    return {name for name, (section, lines) in code.items()
            if any(labels.get((section, address), "").startswith(KEY) for address, _, _ in lines)}


def calls(way):
    """
    Return how many functions are called. The same call in each of two branches is
    one: the compiler likes to copy the end of a branch.
    """
    return len({operands.rpartition("RELOC ")[2] for _, mnemonic, operands in way
                if mnemonic.startswith("call")})


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    on, off, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    labels_on, labels_off = jump_labels(on), jump_labels(off)
    code_on, code_off = functions(on), functions(off)
    unnamed = hooked(code_on, labels_on) - {n.partition(":")[0] for n in names}
    failed = bool(unnamed)
    for name in sorted(unnamed):
        print(f"NOT OK {name}: has a hook, but is not in the list")
    for name, _, slack in (n.partition(":") for n in names):
        way_on, hooks = walk(*code_on[name], labels_on)
        way_off, _ = walk(*code_off[name], labels_off)
        ours = {a: m for a, (key, m) in hooks.items() if key.startswith(KEY)}
        more = len(way_on) - len(way_off)
        nops = all(m.startswith("nop") or m == "xchg" for m in ours.values())
        more_calls = calls(way_on) - calls(way_off)
        good = nops and more <= len(ours) + int(slack or 0) and more_calls <= 0
        failed |= not good
        print(f"{'ok' if good else 'NOT OK'} {name}: {len(ours)} hook(s) on the way, "
              f"{more} instruction(s) and {more_calls} call(s) more"
              + ("" if nops else ", not all NOPs"))
    sys.exit(failed)


if __name__ == "__main__":
    main()
