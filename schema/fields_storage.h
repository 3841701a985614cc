/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of the storage classes. Included by classes.c alone. */
#ifndef FERRY_SCHEMA_FIELDS_STORAGE_H
#define FERRY_SCHEMA_FIELDS_STORAGE_H

#include "schema/fields.h"

/* clang-format off: one field a line */
static const struct class_field SM_fields[] = {
	UUID_FIELD,
	F(name_label, STRING, RO),
	F(name_description, STRING, RO),
	F(type, STRING, RO, .doc = "the SR.type that it serves"),
	F(vendor, STRING, RO),
	F(copyright, STRING, RO),
	F(version, STRING, RO),
	F(required_api_version, STRING, RO),
	F(configuration, MAP, RO, .doc = "keys of device_config, each with what it means"),
	F(capabilities, SET_STRING, RO),
	F(features, MAP_ANY, RO, .doc = "feature to version (int)"),
	OTHER_CONFIG_FIELD,
	F(driver_filename, STRING, RO),
	F(required_cluster_stack, SET_STRING, RO),
	F(supported_image_formats, SET_STRING, RO),
	F(host_pending_features, MAP_ANY, RO),
};

static const struct class_field SR_fields[] = {
	UUID_FIELD,
	NAME_FIELDS,
	OPERATION_FIELDS,
	F(VDIs, DERIVED, RO, .of = "VDI.SR"),
	F(PBDs, DERIVED, RO, .of = "PBD.SR"),
	F(virtual_allocation, INT, RO, .doc = "bytes: sum of the virtual sizes"),
	F(physical_utilisation, INT, RO, .doc = "bytes in use"),
	F(physical_size, INT, RO, .doc = "bytes in all"),
	F(type, STRING, CTOR, .doc = "the SM that serves it"),
	F(content_type, STRING, CTOR, .doc = "user, iso ..."),
	F(shared, BOOL, RW, .doc = "more than one host reaches it"),
	OTHER_CONFIG_FIELD,
	F(tags, SET_STRING, RW, .doc = "free words of clients"),
	F(sm_config, MAP, RW),
	F(blobs, MAP, RO),
	F(local_cache_enabled, BOOL, RO),
	F(introduced_by, REF, RO, .of = "DR_task"),
	F(clustered, BOOL, RO),
	F(is_tools_sr, BOOL, RO),
};

static const struct class_field PBD_fields[] = {
	UUID_FIELD,
	F(host, REF, CTOR, .of = "host", .owner = true),
	F(SR, REF, CTOR, .of = "SR", .owner = true),
	F(device_config, MAP, CTOR, .doc = "how this host reaches the SR"),
	F(currently_attached, BOOL, RO, .doc = "plugged"),
	OTHER_CONFIG_FIELD,
};

static const struct class_field VDI_fields[] = {
	UUID_FIELD,
	NAME_FIELDS,
	OPERATION_FIELDS,
	F(SR, REF, CTOR, .of = "SR", .owner = true, .doc = "where it lies"),
	F(VBDs, DERIVED, RO, .of = "VBD.VDI"),
	F(crash_dumps, SET_REF, RO, .of = "crashdump"),
	F(virtual_size, INT, CTOR, .doc = "bytes, as the guest sees it"),
	F(physical_utilisation, INT, RO, .doc = "bytes in use"),
	F(type, ENUM, CTOR,
		.of = "system|user|ephemeral|suspend|crashdump|ha_statefile|metadata|redo_log|rrd|"
		      "pvs_cache|cbt_metadata",
		.fallback = "user"),
	F(sharable, BOOL, CTOR),
	F(read_only, BOOL, CTOR),
	OTHER_CONFIG_FIELD,
	F(storage_lock, BOOL, RO),
	F(location, STRING, CTOR, .doc = "its name within the SR"),
	F(managed, BOOL, RO, .fallback = "true", .doc = "the SR knows it"),
	F(missing, BOOL, RO, .doc = "the SR did not find it"),
	F(parent, REF, RO, .of = "VDI"),
	F(xenstore_data, MAP, RW),
	F(sm_config, MAP, RW),
	F(is_a_snapshot, BOOL, RO),
	F(snapshot_of, REF, RO, .of = "VDI"),
	F(snapshots, DERIVED, RO, .of = "VDI.snapshot_of"),
	F(snapshot_time, DATETIME, RO),
	F(tags, SET_STRING, RW, .doc = "free words of clients"),
	F(allow_caching, BOOL, RW),
	F(on_boot, ENUM, RW, .of = "reset|persist", .fallback = "persist"),
	F(metadata_of_pool, REF, RO, .of = "pool"),
	F(metadata_latest, BOOL, RO),
	F(is_tools_iso, BOOL, RO),
	F(cbt_enabled, BOOL, RO, .doc = "changed blocks are tracked for backups"),
};

static const struct class_field VBD_fields[] = {
	UUID_FIELD,
	OPERATION_FIELDS,
	F(VM, REF, CTOR, .of = "VM", .owner = true),
	F(VDI, REF, CTOR, .of = "VDI", .owner = true, .doc = "null when empty"),
	F(device, STRING, RO, .doc = "as the guest sees it: xvda"),
	F(userdevice, STRING, RW, .doc = "its place, as decimal text"),
	F(bootable, BOOL, RW),
	F(mode, ENUM, RW, .of = "RO|RW", .fallback = "RW"),
	F(type, ENUM, RW, .of = "CD|Disk|Floppy", .fallback = "Disk"),
	F(unpluggable, BOOL, RW),
	F(storage_lock, BOOL, RO),
	F(empty, BOOL, CTOR, .doc = "a drive without a medium"),
	OTHER_CONFIG_FIELD,
	F(currently_attached, BOOL, CTOR),
	F(status_code, INT, RO),
	F(status_detail, STRING, RO),
	F(runtime_properties, MAP, RO),
	QOS_FIELDS,
	F(metrics, REF, RO, .of = "VBD_metrics"),
};
/* clang-format on */

#endif
