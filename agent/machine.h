/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel tells of this machine, in the words of XenAPI. Nothing here fails: what cannot be
 * read is left out or 0. */
#ifndef FERRY_AGENT_MACHINE_H
#define FERRY_AGENT_MACHINE_H

#include "base/value.h"

#include <stdint.h>

/* host.cpu_info: cpu_count, socket_count, vendor, modelname ... A new map. */
struct value *machine_cpu_info(void);
/* host.bios_strings, of what anybody may read. A new map. */
struct value *machine_bios_strings(void);
/* host.chipset_info: iommu. A new map. */
struct value *machine_chipset_info(void);
/* host.capabilities: "hvm-..." when guests can use hardware virtualisation. A new array. */
struct value *machine_capabilities(void);

void machine_memory(int64_t *ret_total_bytes, int64_t *ret_free_bytes);
/* Wall seconds. */
int64_t machine_boot_time(void);

/* The interface that has the numeric address: what a PIF says of it. All strings owned; "" when
 * there is no such interface. */
struct machine_link {
	char *device;
	char *mac;
	char *netmask; /* IPv4 only */
	int64_t mtu;
};

void machine_find_link(const char *address, struct machine_link *ret_link);
void machine_link_clear(struct machine_link *link);

#endif
