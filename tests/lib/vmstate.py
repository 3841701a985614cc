# SPDX-License-Identifier: Apache-2.0
"""What must be the same of a VM before and after a move: its records but for the declared maps, and the
content of its disks."""

import ferrytest
from ferrytest import NULL

# Fields that name other objects of the pool, or that say what the VM is doing there. `VDI` and `network`
# are what the maps declare.
VOLATILE = {
    "VM": {"allowed_operations", "current_operations", "resident_on", "scheduled_to_be_resident_on",
           "affinity", "consoles", "VIFs", "VBDs", "metrics", "guest_metrics", "snapshots", "children",
           "parent", "suspend_SR", "suspend_VDI", "domid"},
    "VBD": {"uuid", "allowed_operations", "current_operations", "VM", "VDI", "metrics"},
    "VIF": {"uuid", "allowed_operations", "current_operations", "VM", "network", "metrics"},
    "VDI": {"uuid", "allowed_operations", "current_operations", "SR", "VBDs", "location",
            "physical_utilisation", "crash_dumps"},
}


def stable(kind, record):
    return {key: value for key, value in record.items() if key not in VOLATILE[kind]}


def vm_state(pool, vm):
    """Everything that a move must keep, comparable with ==."""
    session = pool.session
    vbds = sorted((session.VBD.get_record(ref) for ref in session.VM.get_VBDs(vm)),
                  key=lambda vbd: int(vbd["userdevice"]))
    vifs = sorted((session.VIF.get_record(ref) for ref in session.VM.get_VIFs(vm)),
                  key=lambda vif: int(vif["device"]))
    state = {
        "VM": stable("VM", session.VM.get_record(vm)),
        "VBDs": [stable("VBD", vbd) for vbd in vbds],
        "VIFs": [stable("VIF", vif) for vif in vifs],
        "VDIs": [],
        "digests": [],
    }
    for vbd in vbds:
        if vbd["empty"]:
            continue
        state["VDIs"].append(stable("VDI", session.VDI.get_record(vbd["VDI"])))
        state["digests"].append(ferrytest.digest(pool.vdi_path(vbd["VDI"])))
    return state


def different(before, after, but=()):
    """Lines that tell what differs between two states; `but`: fields of the VM that may."""
    lines = []
    for part in ("VBDs", "VIFs", "VDIs", "digests"):
        if len(before[part]) != len(after[part]):
            lines.append(f"{part}: {len(before[part])} before, {len(after[part])} after")
    pairs = [("VM", before["VM"], after["VM"])]
    for part in ("VBDs", "VIFs", "VDIs"):
        pairs += [(f"{part}[{i}]", *both) for i, both in enumerate(zip(before[part], after[part]))]
    for name, old, new in pairs:
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and not (name == "VM" and key in but):
                lines.append(f"{name}.{key}: {old.get(key)!r} before, {new.get(key)!r} after")
    for i, (old, new) in enumerate(zip(before["digests"], after["digests"])):
        if old != new:
            lines.append(f"content of disk {i} differs")
    return lines


def family_state(pool, vm):
    """The VM and its snapshots by uuid: the state of each, and what they are to each other, comparable with ==."""
    session = pool.session
    uuids = {NULL: None}
    members = [vm, *session.VM.get_snapshots(vm)]
    for ref in members:
        uuids[ref] = session.VM.get_uuid(ref)
    state = {}
    for ref in members:
        record = session.VM.get_record(ref)
        one = vm_state(pool, ref)
        for part in ("snapshot_of", "parent"):
            one["VM"][part] = uuids[record[part]]
        for part in ("snapshots", "children"):
            one["VM"][part] = sorted(uuids[other] for other in record[part])
        one["MACs"] = sorted(session.VIF.get_MAC(vif) for vif in record["VIFs"])
        one["origins"] = []
        for vdi in pool.disks_of(ref):
            of = session.VDI.get_snapshot_of(vdi)
            one["origins"].append((session.VDI.get_uuid(vdi), of != NULL and session.VDI.get_uuid(of)))
        for disk in one["VDIs"]:
            for part in ("snapshot_of", "snapshots"):
                disk.pop(part)
        state[uuids[ref]] = one
    return state
