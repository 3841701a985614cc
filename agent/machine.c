/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/machine.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "base/parse.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FILE_MAX_BYTES (8 << 20)

/* The file's text without trailing white space; "" when it cannot be read. The caller frees it. */
static char *read_text(const char *path)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	if (io_read_file(path, FILE_MAX_BYTES, &text) < 0)
		return xstrdup("");
	while (text.length && strchr(" \t\n", text.data[text.length - 1]))
		text.data[--text.length] = '\0';
	return buf_take_string(&text);
}

/* "name<tab>: value" or "name: value" at the start of a line; "" when there is none. The caller
 * frees it. */
static char *find_line(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, length) != 0)
			continue;
		const char *at = line + length + strspn(line + length, " \t");
		if (*at != ':')
			continue;
		at += 1 + strspn(at + 1, " \t");
		return xstrndup(at, strcspn(at, "\n"));
	}
	return xstrdup("");
}

/* Distinct values of "physical id"; 1 where the kernel does not tell. */
static int64_t count_sockets(const char *text)
{
	struct value *seen CLEANUP_VALUE = value_new_struct();

	for (const char *at = text; (at = strstr(at, "\nphysical id")); at++) {
		char *id CLEANUP_FREE = find_line(at + 1, "physical id");
		value_set_string(seen, id, "");
	}
	return MAX((int64_t)seen->record.n_members, 1);
}

struct value *machine_cpu_info(void)
{
	static const struct {
		const char *line;
		const char *key;
	} lines[] = {
		{"vendor_id", "vendor"},
		{"model name", "modelname"},
		{"cpu family", "family"},
		{"model", "model"},
		{"stepping", "stepping"},
		{"cpu MHz", "speed"},
		{"flags", "flags"},
	};
	struct value *info = value_new_struct();
	char *text CLEANUP_FREE = read_text("/proc/cpuinfo");

	value_set(info, "cpu_count", value_new_format("%ld", sysconf(_SC_NPROCESSORS_ONLN)));
	value_set(info, "socket_count", value_new_format("%" PRId64, count_sockets(text)));
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		char *found CLEANUP_FREE = find_line(text, lines[i].line);
		value_set_string(info, lines[i].key, found);
	}
	return info;
}

struct value *machine_bios_strings(void)
{
	static const struct {
		const char *file;
		const char *key;
	} files[] = {
		{"bios_vendor", "bios-vendor"},
		{"bios_version", "bios-version"},
		{"sys_vendor", "system-manufacturer"},
		{"product_name", "system-product-name"},
		{"product_version", "system-version"},
	};
	struct value *strings = value_new_struct();

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char *path CLEANUP_FREE = xasprintf("/sys/class/dmi/id/%s", files[i].file);
		char *text CLEANUP_FREE = read_text(path);
		if (*text && utf8_is_valid(text, strlen(text)))
			value_set_string(strings, files[i].key, text);
	}
	return strings;
}

static bool directory_has_entries(const char *path)
{
	DIR *dir = opendir(path);
	bool found = false;

	if (!dir)
		return false;
	for (const struct dirent *entry = readdir(dir); entry && !found; entry = readdir(dir))
		found = entry->d_name[0] != '.';
	closedir(dir);
	return found;
}

struct value *machine_chipset_info(void)
{
	bool iommu = directory_has_entries("/sys/class/iommu");

	return value_set_string(value_new_struct(), "iommu", iommu ? "true" : "false");
}

struct value *machine_capabilities(void)
{
	struct value *capabilities = value_new_array();
	struct utsname name;

	if (access("/dev/kvm", F_OK) == 0 && uname(&name) == 0)
		value_append(capabilities, value_new_format("hvm-3.0-%s", name.machine));
	return capabilities;
}

/* "MemTotal:  16316412 kB" */
static int64_t read_kilobytes(const char *text, const char *name)
{
	char *line CLEANUP_FREE = find_line(text, name);
	int64_t kilobytes = 0;

	line[strcspn(line, " ")] = '\0';
	return parse_int64(line, &kilobytes) == 0 ? kilobytes * 1024 : 0;
}

void machine_memory(int64_t *ret_total_bytes, int64_t *ret_free_bytes)
{
	char *text CLEANUP_FREE = read_text("/proc/meminfo");

	*ret_total_bytes = read_kilobytes(text, "MemTotal");
	*ret_free_bytes = read_kilobytes(text, "MemAvailable");
}

int64_t machine_boot_time(void)
{
	char *text CLEANUP_FREE = read_text("/proc/stat");
	const char *at = strstr(text, "\nbtime ");
	int64_t seconds = 0;

	if (!at)
		return 0;
	at += strlen("\nbtime ");
	char *digits CLEANUP_FREE = xstrndup(at, strcspn(at, "\n"));
	return parse_int64(digits, &seconds) == 0 ? seconds : 0;
}

static const void *address_bytes(const struct sockaddr *address)
{
	if (!address)
		return NULL;
	if (address->sa_family == AF_INET)
		return &((const struct sockaddr_in *)address)->sin_addr;
	if (address->sa_family == AF_INET6)
		return &((const struct sockaddr_in6 *)address)->sin6_addr;
	return NULL;
}

static bool has_address(const struct ifaddrs *entry, int family, const void *wanted)
{
	const void *bytes = address_bytes(entry->ifa_addr);

	return bytes && entry->ifa_addr->sa_family == family &&
	       memcmp(bytes, wanted, family == AF_INET ? 4 : 16) == 0;
}

static void describe_link(const struct ifaddrs *entry, struct machine_link *link)
{
	char text[INET6_ADDRSTRLEN] = "";
	char *mac_file CLEANUP_FREE = xasprintf("/sys/class/net/%s/address", entry->ifa_name);
	char *mtu_file CLEANUP_FREE = xasprintf("/sys/class/net/%s/mtu", entry->ifa_name);
	char *mtu CLEANUP_FREE = read_text(mtu_file);

	if (entry->ifa_addr->sa_family == AF_INET && entry->ifa_netmask)
		inet_ntop(AF_INET, address_bytes(entry->ifa_netmask), text, sizeof(text));
	link->device = xstrdup(entry->ifa_name);
	link->mac = read_text(mac_file);
	link->netmask = xstrdup(text);
	parse_int64(mtu, &link->mtu);
}

void machine_find_link(const char *address, struct machine_link *ret_link)
{
	struct ifaddrs *list = NULL;
	unsigned char wanted[16];
	int family = strchr(address, ':') ? AF_INET6 : AF_INET;
	struct machine_link link = {.mtu = 1500};

	if (inet_pton(family, address, wanted) == 1 && getifaddrs(&list) == 0) {
		const struct ifaddrs *at = list;
		while (at && !has_address(at, family, wanted))
			at = at->ifa_next;
		if (at)
			describe_link(at, &link);
		freeifaddrs(list);
	}
	if (!link.device) {
		link.device = xstrdup("");
		link.mac = xstrdup("");
		link.netmask = xstrdup("");
	}
	*ret_link = link;
}

void machine_link_clear(struct machine_link *link)
{
	free(link->device);
	free(link->mac);
	free(link->netmask);
	memset(link, 0, sizeof(*link));
}
