#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Moves the VMs that have a tag into an SR of another pool, and takes the tag from those that have arrived."""

import argparse

import ferryscript


def work(options):
    source = ferryscript.login(options)
    there = ferryscript.login(options, "to-")
    try:
        sr = ferryscript.find(there, "SR", options.sr)
        network = ferryscript.find(there, "network", options.network) if options.network else None
        tagged = {ref: vm for ref, vm in ferryscript.guests(source).items() if options.tag in vm["tags"]}
        if not tagged:
            raise ferryscript.Problem(f"no VM of {source.url} has the tag {options.tag}")
        moves = ferryscript.Moves(source, options.at_once)
        labels = {f"{vm['name_label']} ({vm['uuid']})": vm["uuid"] for vm in tagged.values()}
        moves.run([(f"{vm['name_label']} ({vm['uuid']})",
                    lambda ref=ref: ferryscript.move_to_pool(source, there, ref, sr, network))
                   for ref, vm in tagged.items()])
        for label, uuid in labels.items():
            if moves.results[label] == "moved" and not options.keep_tag:
                there.VM.remove_tags(there.VM.get_by_uuid(uuid), options.tag)
        return moves.report()
    finally:
        source.close()
        there.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    ferryscript.add_move(parser, "the pool that has them", "the pool that gets them", at_once=3)
    parser.add_argument("--keep-tag", action="store_true", help="leave the tag on those that have arrived")
    parser.add_argument("tag")
    ferryscript.main(work, parser.parse_args())
