#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""
Usage: fuzz.py BUILD SRCTREE SECONDS [SEED]

Feeds khealth with what nobody should: environments, settings, files of /proc,
messages of netlink, spool entries. BUILD has it, built by clang with sanitizers and
for libFuzzer; most of the time is libFuzzer's, with fuzz.c, and a part goes to the
programs as they are. They must not crash, and no sanitizer may say anything. A
failure prints the seed, or the input that was found.
"""

import glob
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOOL = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(HERE))), "tools/khealthd")
NAMES = ["MONITOR", "EVENT", "STATE", "SEQ", "UNIT", "LOW", "HIGH", "CROSSINGS",
         "CROSSINGS_OTHERS", "REFUSED", "OTHERS", "DURATION_MS", "FREE", "CAPACITY", "NODE", "CPU",
         "IFINDEX", "FAMILY", "PROTOCOL", "PORT", "UID", "SOCK_COOKIE", "NETNS", "NETNS_COOKIE",
         "CGROUP"]
WORDS = ["low", "exhausted", "repeat", "recovered", "test", "ok", "sock_rcvbuf", "backlog",
         "proto_mem", "bytes", "0", "1", "2", "6", "9", "10", "16", "17", "132", "255", "65535",
         "4294967295", "4294967296", "18446744073709551615", "18446744073709551616", "-1", "",
         "00", "x" * 33, "x" * 5000, "%s%n", "a\nb", "\xff", "{", "\"", "\\", "../..", "=", "#"]
SETTINGS = ["mail", "mail_to", "webhook_url", "alertmanager_labels", "alertmanager_instance",
            "facts_ms", "host", "runbook", "min_duration", "log_events", "x", "webhook_curl"]
RULES = ["critical", "warning", "until=2099-01-01", "until=x", "monitor=*", "port=1-2", "port=-",
         "uid=1-", "port=1-99999999999999999999", "family=[", "service=" + "a" * 300, "=", "a=",
         "#", "level=low", "process=\\", "[!", "protocol=udp"]


def word(rng):
    if rng.random() < 0.7:
        return rng.choice(WORDS)
    return "".join(chr(rng.randrange(1, 256)) for _ in range(rng.randrange(40)))


def environment(rng):
    env = {"ASAN_OPTIONS": "fast_unwind_on_malloc=0", "TROUBLED_DS": word(rng).replace("\0", "")}
    if rng.random() < 0.8:
        env.update(KHEALTHD_MONITOR="sock_rcvbuf", KHEALTHD_EVENT=rng.choice(WORDS[:5]))
    for name in NAMES:
        if rng.random() < 0.5:
            env.setdefault(f"KHEALTHD_{name}", word(rng).replace("\0", ""))
    return {name: value.encode("latin-1") for name, value in env.items()}


def write(path, text):
    with open(path, "w", encoding="latin-1") as f:
        f.write(text)


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 8)):
        if not data:
            break
        at = rng.randrange(len(data))
        what = rng.randrange(4)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            del data[at:at + rng.randrange(1, 50)]
        elif what == 2:
            data[at:at] = data[rng.randrange(len(data)):][:rng.randrange(50)]
        else:
            data = data[:at]
    return bytes(data)


def bad(done):
    return done.returncode < 0 or b"Sanitizer" in done.stdout or b"runtime error" in done.stdout


def one(rng, scratch):
    """One alert in a world of nonsense."""
    os.makedirs("/var/lib/khealthd/spool", exist_ok=True)
    write("/etc/khealthd/khealth.conf", "facts_ms=50\nlog=on\n" + "".join(
        f"{rng.choice(SETTINGS)}={word(rng)}\n" for _ in range(rng.randrange(6))))
    for name in "severity", "silences":
        write(f"/etc/khealthd/{name}", "".join(
            " ".join(rng.choice(RULES) for _ in range(rng.randrange(5))) + "\n"
            for _ in range(rng.randrange(5))))
    write("/proc/self/comm", "".join(chr(rng.randrange(1, 256)) for _ in range(8)) + "\n")
    done = subprocess.run([f"{scratch}/khealth-alert"], env=environment(rng), check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for name in os.listdir("/var/lib/khealthd/kept"):
        with open(f"/var/lib/khealthd/kept/{name}", "rb") as f:
            data = f.read()
        with open(f"/var/lib/khealthd/spool/{rng.randrange(10**9)}", "wb") as f:
            f.write(mutate(rng, data))
    if not bad(done):
        done = subprocess.run([f"{scratch}/khealth", "notify"], check=False,
                              env={"ASAN_OPTIONS": "detect_leaks=0"},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done


def corpus(folder):
    """One good input, that others are made of: parts as fuzz.c has them."""
    env = {name: b"1" for name in NAMES}
    env.update(MONITOR=b"sock_rcvbuf", EVENT=b"exhausted", STATE=b"low", UNIT=b"bytes",
               FAMILY=b"2", PROTOCOL=b"17", PORT=b"514")
    parts = [b"TROUBLED_DS=4\0" + b"\0".join(b"KHEALTHD_%s=%s" % (name.encode(), value)
                                              for name, value in env.items()),
             b"log=on\nmail_to=root\nalertmanager_labels=a=b\nown_queue=net work\n",
             b"critical level=exhausted\nwarning port=1-2\n", b"until=2099-01-01 uid=1-2\n",
             b"1 (a b) S 1 1", b"name\n", b"1:name=systemd:/\n0::/system.slice/docker-" +
             b"0123456789abcdef" * 4 + b".scope\n", b"/bin/sh\0-c\0:\0"]
    memory = struct.pack("=HH9I", 40, 7, *range(9))
    inet = bytes([2, 1, 0, 0]) + bytes(68) + memory
    episode = attribute(1, attribute(1, struct.pack("=Q", 10))) + \
        attribute(2, struct.pack("=I", 1))
    family = struct.pack("=BBH", 1, 1, 0) + attribute(1, struct.pack("=I", 4)) + \
        attribute(2, b"sock_rcvbuf\0") + attribute(10, episode)
    header = struct.pack("=IHHII", 16 + len(inet), 20, 0, 0, 0)
    for number, message in enumerate((inet, family, header + inet)):
        with open(f"{folder}/{number}", "wb") as f:
            f.write(b"\xfd".join([*parts, message]))


def attribute(number, data):
    """As netlink has them."""
    return struct.pack("=HH", 4 + len(data), number) + data + bytes(-len(data) % 4)


def dictionary(path):
    words = WORDS + RULES + [f"{name}=" for name in SETTINGS] + [f"KHEALTHD_{n}=" for n in NAMES]
    write(path, "".join('"' + "".join(f"\\x{b:02x}" for b in word.encode("latin-1")) + '"\n'
                        for word in words if 0 < len(word) < 60))


def build(khealth, srctree, scratch):
    for name in "khealth", "khealth-alert":
        os.symlink(f"{khealth}/khealth", f"{scratch}/{name}")
    objects = [f for f in glob.glob(f"{khealth}/*.o")
               if os.path.basename(f) not in ("main.o", "conf.o", "diag.o", "output.o")]
    subprocess.run(["clang", "-g", "-O1", "-std=gnu11", "-D_GNU_SOURCE",
                    "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all",
                    "-Wl,--wrap=complain",
                    f"-I{TOOL}", f"-I{khealth}", f"-I{srctree}/tools/net/ynl/lib",
                    "-I/usr/include/json-c", "-o", f"{scratch}/fuzz", f"{HERE}/fuzz.c", *objects,
                    "-ljson-c", "-lncurses", "-ltinfo"], check=True)


def by_libfuzzer(scratch, seconds, seed):
    """Its files of /proc are those of a process that sleeps, with a folder over them."""
    os.mkdir(f"{scratch}/corpus")
    corpus(f"{scratch}/corpus")
    dictionary(f"{scratch}/words")
    with subprocess.Popen(["sleep", "infinity"]) as process:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"/proc/{process.pid}"], check=True)
        done = subprocess.run(
            [f"{scratch}/fuzz", f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=20000",
             f"-dict={scratch}/words", f"-artifact_prefix={scratch}/", "-timeout=20",
             f"{scratch}/corpus"],
            env={"FUZZ_PROCESS": str(process.pid)}, check=False, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        process.kill()
    told = done.stdout.decode(errors="replace")
    if done.returncode:
        print(told[-8000:])
        for path in glob.glob(f"{scratch}/[clot]*-*"):
            with open(path, "rb") as f:
                print(f"{os.path.basename(path)}: {f.read()!r}")
        return False
    print("\n".join(told.splitlines()[-2:]))
    return True


def whole_programs(scratch, seconds, seed):
    # An entry to begin with: it stays in the spool if somebody takes it over.
    env = dict(environment(random.Random(1)), KHEALTHD_MONITOR=b"sock_rcvbuf",
               KHEALTHD_EVENT=b"exhausted")
    os.makedirs("/run/khealthd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("/run/khealthd/notify")
        subprocess.run([f"{scratch}/khealth-alert"], env=env, check=False)
    os.unlink("/run/khealthd/notify")
    for name in os.listdir("/var/lib/khealthd/spool"):
        os.rename(f"/var/lib/khealthd/spool/{name}", f"/var/lib/khealthd/kept/{name}")
    if not os.listdir("/var/lib/khealthd/kept"):
        print("no entry came into the spool")
        return False
    os.makedirs("/etc/khealthd/outputs")
    write("/etc/khealthd/outputs/x", "#!/bin/sh\nexit $((KHEALTHD_SEQ % 3 * 65 % 66))\n")
    os.chmod("/etc/khealthd/outputs/x", 0o755)
    rounds = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done = one(random.Random(seed + rounds), scratch)
        if bad(done):
            print(f"seed {seed + rounds}: status {done.returncode}\n"
                  f"{done.stdout.decode(errors='replace')[-4000:]}")
            return False
        rounds += 1
    print(f"{rounds} rounds of the programs, seed {seed}")
    return True


def inside(khealth, srctree, seconds, seed):
    for place in "/var/lib", "/run", "/etc/khealthd", "/usr/lib/khealthd":
        if os.path.isdir(place):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place], check=True)
    os.makedirs("/etc/khealthd", exist_ok=True)
    os.makedirs("/var/lib/khealthd/kept")
    scratch = tempfile.mkdtemp()
    build(khealth, srctree, scratch)
    good = by_libfuzzer(scratch, max(seconds * 3 // 4, 1), seed)
    return 0 if good and whole_programs(scratch, seconds // 4, seed) else 1


def main():
    if len(sys.argv) < 4 or sys.argv[1] == "--help":
        print(__doc__.strip())
        return 0
    sys.path.insert(0, os.path.dirname(HERE))
    from alert import host      # pylint: disable=import-outside-toplevel
    if sys.argv[1] != "--inside":
        host.enter(sys.argv)
    build_dir, srctree, seconds, *seed = sys.argv[2:]
    seed = int(seed[0]) if seed else random.randrange(1, 2**31)
    # Where the folder is not there, it is made in a layer of its own.
    scratch = tempfile.mkdtemp(dir="/dev/shm")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch], check=True)
    host.over("/etc", scratch)
    os.makedirs("/etc/khealthd", exist_ok=True)
    return inside(os.path.abspath(build_dir), srctree, int(seconds), seed)


if __name__ == "__main__":
    sys.exit(main())
