#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Moves VMs into an SR of another pool within a window of time: begins none outside of it, and cancels at its end those that
have not asked for their commit yet. What was cancelled is as it was, and is moved the next night. Run it from cron."""

import argparse
import datetime
import time

import ferryscript


def time_of_day(text):
    try:
        return datetime.datetime.strptime(text, "%H:%M").time()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time of day, as 01:30") from None


def window_end(now, begin, end):
    """When the window that `now` is in ends; None outside of it. It may reach over midnight."""
    for days in (-1, 0):
        day = now.date() + datetime.timedelta(days)
        first = datetime.datetime.combine(day, begin)
        last = datetime.datetime.combine(day + datetime.timedelta(begin >= end), end)
        if first <= now < last:
            return last
    return None


def work(options):
    end = window_end(datetime.datetime.now(), options.begin, options.end)
    if end is None:
        raise ferryscript.Problem(f"it is not between {options.begin:%H:%M} and {options.end:%H:%M}: nothing was begun")
    # By a clock that nobody sets.
    last = time.monotonic() + (end - datetime.datetime.now()).total_seconds()
    source = ferryscript.login(options)
    there = ferryscript.login(options, "to-")
    try:
        sr = ferryscript.find(there, "SR", options.sr)
        network = ferryscript.find(there, "network", options.network) if options.network else None
        chosen = {name: ferryscript.find(source, "VM", name) for name in options.vm}
        moves = ferryscript.Moves(source, options.at_once)
        moves.run([(name, lambda ref=ref: ferryscript.move_to_pool(source, there, ref, sr, network))
                   for name, ref in chosen.items()],
                  may_begin=lambda: time.monotonic() < last - 60 * options.reserve,
                  may_go_on=lambda: time.monotonic() < last)
        return moves.report()
    finally:
        source.close()
        there.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    ferryscript.add_move(parser, "the pool that has them", "the pool that gets them", at_once=2)
    parser.add_argument("--begin", type=time_of_day, required=True, metavar="HH:MM", help="of the window, local time")
    parser.add_argument("--end", type=time_of_day, required=True, metavar="HH:MM")
    parser.add_argument("--reserve", type=int, default=0, metavar="MINUTES", help="begin none so near to the end")
    parser.add_argument("vm", nargs="+", help="uuid or name")
    ferryscript.main(work, parser.parse_args())
