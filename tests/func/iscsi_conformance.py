#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An export as other people's initiators see it: qemu-img, and libiscsi's conformance suites.

iscsi-test-cu runs suite by suite: in one run its CompareAndWrite suite leaves a hook behind that
spoils the others. What fails must be exactly what the plain tgtd 1.0.85 fails (BASELINE): more is
our fault, less means that the list is out of date.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

SIZE_MIB = 128
SUITE_TIMEOUT = 30

# tgtd 1.0.85, rdwr, 512-byte blocks, thin provisioning on, libiscsi 1.19.
BASELINE = {
    "GetLBAStatus.BeyondEol",  # LBA 2^63 wraps to 0
    "GetLBAStatus.UnmapSingle",  # the file system's blocks are larger than 512 bytes
    "Unmap.ZeroBlocks",  # the same
    "PrinServiceactionRange.Range",  # PERSISTENT RESERVE IN, read full status, is missing
    "ProutReserve.OwnershipEA",  # unit attention 2A/04 after reservations change
    "ProutReserve.OwnershipWE",
    "ProutReserve.OwnershipEARO",
    "ProutReserve.OwnershipWERO",
    "Reserve6.2Initiators",
    "iSCSIdatasn.iSCSIDataSnInvalid",  # DataSN is not checked
}


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            print(f"{program} is not installed")
            sys.exit(77)


class Export:
    """A tgtd with one export, as long as the block runs."""

    def __init__(self, directory):
        program = os.path.join(os.environ["FERRY_BIN"], "hold_export")
        self.process = subprocess.Popen(
            [program, directory, str(SIZE_MIB)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def __enter__(self):
        words = self.process.stdout.readline().split()
        assert len(words) == 6, f"hold_export said {words}"
        self.portal, self.iqn, self.initiator, self.user, self.secret, self.image = words
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        status = self.process.wait(timeout=20)
        assert status == 0, f"hold_export ended with {status}"

    def url(self):
        return f"iscsi://{self.user}%{self.secret}@{self.portal}/{self.iqn}/1"

    def qemu_options(self):
        return (f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={self.portal},"
                f"file.target={self.iqn},file.lun=1,file.user={self.user},"
                f"file.password={self.secret},file.initiator-name={self.initiator}")


def run(*command, timeout=SUITE_TIMEOUT):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout)
    return done.returncode, done.stdout


def check(command, wanted_text=""):
    status, output = run(*command)
    assert status == 0 and wanted_text in output, f"{command[0]} ended with {status}:\n{output}"


def check_qemu(export):
    """Random data and holes go in by qemu-img and are the same by iSCSI and in the file."""
    source = os.path.join(os.path.dirname(export.image), "source.img")
    with open(source, "wb") as file:
        file.truncate(SIZE_MIB << 20)
        for mib in (0, 3, 64, SIZE_MIB - 1):
            file.seek(mib << 20)
            file.write(os.urandom(1 << 20))
    options = export.qemu_options()
    check(["qemu-img", "info", "--image-opts", options], f"({SIZE_MIB << 20} bytes)")
    check(["qemu-img", "convert", "-n", "-f", "raw", "--target-image-opts", source, options])
    check(["qemu-img", "compare", "--image-opts", f"driver=raw,file.filename={source}", options],
          "Images are identical.")
    check(["cmp", source, export.image])
    check(["qemu-io", "--image-opts", options, "-c", f"discard 0 {SIZE_MIB}M", "-c", "flush"])
    allocated = os.stat(export.image).st_blocks * 512
    assert allocated < 1 << 20, f"{allocated} bytes are allocated after discarding all"
    os.unlink(source)


def suites():
    status, output = run("iscsi-test-cu", "-l")
    names = re.findall(r"^ALL\.(\w+)$", output, re.M)
    assert len(names) > 40, f"iscsi-test-cu -l ended with {status}:\n{output}"
    return names


# CUnit: "  Test: BeyondEol ...FAILED"; messages of the test stand between the two, as whole lines,
# or after.
RESULT = re.compile(r"^\s*Test: (\S+) \.\.\.|(?:^|(?<=\.\.\.))(passed|FAILED)", re.M)


def run_suite(export, suite):
    """The names of the tests that passed and of those that failed."""
    passed, failed, test = [], [], None
    _, output = run("iscsi-test-cu", "-d", "-v", "-i", export.initiator, "-I", export.initiator, "-t", f"ALL.{suite}",
                    export.url())
    for match in RESULT.finditer(output):
        if match.group(1):
            test = match.group(1)
        elif test:
            (passed if match.group(2) == "passed" else failed).append(f"{suite}.{test}")
            test = None
    total = re.search(r"^ +tests +\d+ +(\d+) +(\d+) +(\d+)", output, re.M)
    assert total and int(total[1]) > 0, f"iscsi-test-cu ran nothing of {suite}:\n{output}"
    assert (int(total[2]), int(total[3])) == (len(passed), len(failed)), (
        f"{suite}: not all results were understood:\n{output}")
    return passed, failed


def check_conformance(export):
    passed, failed = [], []
    for suite in suites():
        suite_passed, suite_failed = run_suite(export, suite)
        passed += suite_passed
        failed += suite_failed
    print(f"{len(passed)} passed, {len(failed)} failed of {len(passed) + len(failed)}")
    worse, better = set(failed) - BASELINE, BASELINE - set(failed)
    assert not worse, f"failed beyond the baseline: {sorted(worse)}"
    assert not better, f"passed, but stand in the baseline: {sorted(better)}"


def main():
    need("/usr/sbin/tgtd", "iscsi-test-cu", "qemu-img", "qemu-io")
    with tempfile.TemporaryDirectory(prefix="ferry-iscsi-") as directory:
        with Export(directory) as export:
            check_qemu(export)
            check_conformance(export)


if __name__ == "__main__":
    main()
