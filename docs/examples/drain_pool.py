#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Moves all VMs of a pool into an SR of another pool, some at once, and reports what became of each."""

import argparse

import ferryscript


def work(options):
    source = ferryscript.login(options)
    there = ferryscript.login(options, "to-")
    try:
        sr = ferryscript.find(there, "SR", options.sr)
        network = ferryscript.find(there, "network", options.network) if options.network else None
        moves = ferryscript.Moves(source, options.at_once)
        moves.run([(vm["name_label"] if options.by_name else f"{vm['name_label']} ({vm['uuid']})",
                    lambda ref=ref: ferryscript.move_to_pool(source, there, ref, sr, network))
                   for ref, vm in ferryscript.guests(source).items()])
        return moves.report()
    finally:
        source.close()
        there.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    ferryscript.add_move(parser, "the pool that is drained", "the pool that gets the VMs", at_once=3)
    parser.add_argument("--by-name", action="store_true", help="no uuids in the report")
    ferryscript.main(work, parser.parse_args())
