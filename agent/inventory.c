/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/inventory.h"

#include "agent/machine.h"
#include "base/alloc.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define FILE_DRIVER "file"

/* What one run of inventory_ensure works on. */
struct work {
	const struct config *config;
	const char *member;    /* this host's ref in another's pool; NULL: it is the coordinator */
	struct value *host;    /* facts, read before the transaction begins */
	struct value *metrics; /* the same */
	int64_t boot_time;     /* wall seconds */
	char *ip;              /* numeric: of the management interface */
	struct machine_link link;
	struct inventory inventory; /* result */
};

static void work_clear(struct work *work)
{
	value_free(work->host);
	value_free(work->metrics);
	free(work->ip);
	machine_link_clear(&work->link);
	inventory_clear(&work->inventory);
}

void inventory_clear(struct inventory *inventory)
{
	free(TAKE_PTR(inventory->pool_ref));
	free(TAKE_PTR(inventory->host_ref));
}

static bool is_numeric(const char *address)
{
	struct in6_addr bytes;

	return inet_pton(AF_INET, address, &bytes) == 1 ||
	       inet_pton(AF_INET6, address, &bytes) == 1;
}

static struct value *strings(const char *const *items)
{
	struct value *array = value_new_array();

	for (; *items; items++)
		value_append_string(array, *items);
	return array;
}

/* --- What each object says ----------------------------------------------------------------------
 */

static struct value *software_version(void)
{
	struct value *version = value_new_struct();

	/* Clients split product_version at the dots and compare the integers. */
	value_set_string(version, "product_version", FERRY_VERSION);
	value_set_string(version, "product_version_text", FERRY_VERSION);
	value_set_string(version, "product_brand", "Ferry");
	value_set_string(version, "platform_name", "Ferry");
	value_set_string(version, "platform_version", FERRY_VERSION);
	value_set_string(version, "build_number", "0");
	value_set_string(version, "xapi", "2.23");
	return version;
}

/* Nothing is licensed and nothing restricted; these are the keys that clients look up. */
static struct value *license_params(void)
{
	struct value *params = value_new_struct();

	value_set_string(params, "sku_type", "free");
	value_set_string(params, "sku_marketing_name", "Ferry");
	value_set_string(params, "expiry", "20991231T23:59:59Z");
	value_set_string(params, "restrict_storage_xen_motion", "false");
	value_set_string(params, "restrict_xen_motion", "false");
	return params;
}

/* Fields of the host that follow the machine and the configuration. */
static struct value *host_facts(const struct config *config)
{
	static const char *const operations[] = {"provision", "vm_migrate", NULL};
	static const char *const editions[] = {"free", NULL};
	struct value *host = value_new_struct();
	char hostname[256] = "";

	gethostname(hostname, sizeof(hostname) - 1);
	value_set_string(host, "hostname", hostname);
	value_set_string(host, "address", config->address);
	value_set_bool(host, "enabled", true);
	value_set_bool(host, "https_only", true);
	value_set_string(host, "API_version_vendor", "Ferry");
	value_set(host, "software_version", software_version());
	value_set(host, "license_params", license_params());
	value_set_string(host, "edition", "free");
	value_set(host, "editions", strings(editions));
	value_set(host, "allowed_operations", strings(operations));
	value_set(host, "capabilities", machine_capabilities());
	value_set(host, "chipset_info", machine_chipset_info());
	value_set(host, "bios_strings", machine_bios_strings());
	value_set(host, "cpu_info", machine_cpu_info());
	return host;
}

static struct value *metrics_facts(void)
{
	struct value *metrics = value_new_struct();
	int64_t total, free_bytes;

	machine_memory(&total, &free_bytes);
	value_set_int(metrics, "memory_total", total);
	value_set_int(metrics, "memory_free", free_bytes);
	value_set_bool(metrics, "live", true);
	value_set(metrics, "last_updated", value_new_datetime(clock_wall_sec()));
	return metrics;
}

static struct value *pif_facts(const struct work *work)
{
	struct value *pif = value_new_struct();
	bool is_v6 = strchr(work->ip, ':');

	value_set_string(pif, "device", work->link.device);
	value_set_string(pif, "MAC", work->link.mac);
	value_set_int(pif, "MTU", work->link.mtu);
	value_set_bool(pif, "management", true);
	value_set_bool(pif, "physical", true);
	value_set_bool(pif, "currently_attached", true);
	value_set_string(pif, "primary_address_type", is_v6 ? "IPv6" : "IPv4");
	value_set_string(pif, "ip_configuration_mode", is_v6 ? "None" : "Static");
	value_set_string(pif, "ipv6_configuration_mode", is_v6 ? "Static" : "None");
	value_set_string(pif, "IP", is_v6 ? "" : work->ip);
	value_set_string(pif, "netmask", work->link.netmask);
	struct value *v6 = value_new_array();
	value_set(pif, "IPv6", is_v6 ? value_append_string(v6, work->ip) : v6);
	return pif;
}

static struct value *pool_facts(const struct work *work)
{
	static const char *const keys[] = {"cpu_count", "socket_count"};
	struct value *pool = value_new_struct();
	struct value *cpu_info = value_new_struct();
	struct value *restrictions = value_new_struct();
	const struct value *of_host = value_find(work->host, "cpu_info");

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		value_set_string(cpu_info, keys[i], value_find_string(of_host, keys[i], "1"));
	value_set_string(restrictions, "restrict_storage_xen_motion", "false");
	value_set_string(restrictions, "restrict_xen_motion", "false");
	value_set(pool, "cpu_info", cpu_info);
	value_set(pool, "restrictions", restrictions);
	return pool;
}

static struct value *driver_facts(void)
{
	static const char *const capabilities[] = {"SR_UPDATE", "VDI_CREATE", "VDI_DELETE",
		"VDI_RESIZE", "VDI_UPDATE", "VDI_MIRROR", NULL};
	static const char *const formats[] = {"raw", NULL};
	struct value *driver = value_new_struct();
	struct value *features = value_new_struct();
	struct value *configuration = value_new_struct();

	for (const char *const *name = capabilities; *name; name++)
		value_set_int(features, *name, 1);
	value_set_string(configuration, "location",
		"absolute path of an existing directory that the daemon's user can write");
	value_set_string(driver, "type", FILE_DRIVER);
	value_set_string(driver, "name_label", "File");
	value_set_string(driver, "name_description", "raw images in a directory of one host");
	value_set_string(driver, "vendor", "Ferry");
	value_set_string(driver, "version", FERRY_VERSION);
	value_set_string(driver, "required_api_version", "2.0");
	value_set(driver, "configuration", configuration);
	value_set(driver, "capabilities", strings(capabilities));
	value_set(driver, "features", features);
	value_set(driver, "supported_image_formats", strings(formats));
	return driver;
}

/* --- First start --------------------------------------------------------------------------------
 */

static int create(struct pool_db *pool, const char *class, struct value *fields, char **ret_ref,
	struct fault *fault)
{
	struct value *owned CLEANUP_VALUE = fields;

	return object_create(pool, class, owned, ret_ref, fault);
}

static int set(struct pool_db *pool, const char *class, const char *ref, struct value *fields,
	struct fault *fault)
{
	struct value *owned CLEANUP_VALUE = fields;

	return object_set_fields(pool, class, ref, owned, fault);
}

static int create_host(struct pool_db *pool, struct work *work, struct fault *fault)
{
	char *metrics CLEANUP_FREE = NULL;
	int r = object_create(pool, "host_metrics", work->metrics, &metrics, fault);

	if (r < 0)
		return r;
	struct value *host = value_copy(work->host);
	value_set_string(host, "name_label", work->config->host_name);
	value_set_string(host, "metrics", metrics);
	return create(pool, "host", host, &work->inventory.host_ref, fault);
}

static int create_pool(struct pool_db *pool, struct work *work, struct fault *fault)
{
	struct value *fields = pool_facts(work);

	value_set_string(fields, "name_label", work->config->pool_name);
	value_set_string(fields, "master", work->inventory.host_ref);
	return create(pool, "pool", fields, &work->inventory.pool_ref, fault);
}

/* Every XenAPI pool has one VM for each host itself; clients filter on is_control_domain. */
static int create_control_domain(struct pool_db *pool, struct work *work, struct fault *fault)
{
	static const char *const memory_fields[] = {"memory_static_max", "memory_dynamic_max",
		"memory_dynamic_min", "memory_static_min", "memory_target"};
	struct value *metrics = value_new_struct();
	struct value *vm = value_new_struct();
	char *metrics_ref CLEANUP_FREE = NULL;
	char *vm_ref CLEANUP_FREE = NULL;
	int64_t total = value_find_int(work->metrics, "memory_total", 0);
	int64_t n_cpus = sysconf(_SC_NPROCESSORS_ONLN);

	value_set_int(metrics, "memory_actual", total);
	value_set_int(metrics, "VCPUs_number", n_cpus);
	value_set(metrics, "start_time", value_new_datetime(work->boot_time));
	for (size_t i = 0; i < ARRAY_SIZE(memory_fields); i++)
		value_set_int(vm, memory_fields[i], total);
	value_set(vm, "name_label",
		value_new_format("Control domain on host: %s", work->config->host_name));
	value_set_string(vm, "name_description", "the host's own operating system");
	value_set_bool(vm, "is_control_domain", true);
	value_set_string(vm, "power_state", "Running");
	value_set_int(vm, "domid", 0);
	value_set_int(vm, "VCPUs_max", n_cpus);
	value_set_int(vm, "VCPUs_at_startup", n_cpus);
	value_set_string(vm, "resident_on", work->inventory.host_ref);
	value_set_string(vm, "affinity", work->inventory.host_ref);

	int r = create(pool, "VM_metrics", metrics, &metrics_ref, fault);
	if (r >= 0)
		value_set_string(vm, "metrics", metrics_ref);
	if (r < 0) {
		value_free(vm);
		return r;
	}
	r = create(pool, "VM", vm, &vm_ref, fault);
	if (r < 0)
		return r;
	struct value *domain = value_new_struct();
	value_set_string(domain, "control_domain", vm_ref);
	return set(pool, "host", work->inventory.host_ref, domain, fault);
}

static int create_management_network(struct pool_db *pool, struct work *work, struct fault *fault)
{
	struct value *network = value_new_struct();
	char *network_ref CLEANUP_FREE = NULL;
	char *pif_ref CLEANUP_FREE = NULL;

	value_set_string(network, "name_label", "Management network");
	value_set_string(network, "name_description", "where hosts and clients reach each other");
	int r = create(pool, "network", network, &network_ref, fault);
	if (r < 0)
		return r;
	struct value *pif = pif_facts(work);
	value_set_string(pif, "network", network_ref);
	value_set_string(pif, "host", work->inventory.host_ref);
	return create(pool, "PIF", pif, &pif_ref, fault);
}

static int create_all(struct pool_db *pool, struct work *work, struct fault *fault)
{
	char *driver CLEANUP_FREE = NULL;
	int r = create_host(pool, work, fault);

	if (r >= 0)
		r = create_pool(pool, work, fault);
	if (r >= 0)
		r = create_control_domain(pool, work, fault);
	if (r >= 0)
		r = create_management_network(pool, work, fault);
	if (r >= 0)
		r = create(pool, "SM", driver_facts(), &driver, fault);
	return r;
}

/* --- Every start --------------------------------------------------------------------------------
 */

static int refresh_pifs(struct pool_db *pool, const struct work *work, struct fault *fault)
{
	struct value *pifs CLEANUP_VALUE = NULL;
	int r = object_find(pool, "PIF", "host", work->inventory.host_ref, &pifs, fault);

	for (size_t i = 0; r >= 0 && i < pifs->array.n_items; i++) {
		const char *pif = pifs->array.items[i]->string;
		bool management = false;
		r = object_get_bool(pool, "PIF", pif, "management", &management, fault);
		if (r >= 0 && management)
			r = set(pool, "PIF", pif, pif_facts(work), fault);
	}
	return r;
}

static int refresh_driver(struct pool_db *pool, struct fault *fault)
{
	struct value *drivers CLEANUP_VALUE = NULL;
	int r = object_find(pool, "SM", "type", FILE_DRIVER, &drivers, fault);

	for (size_t i = 0; r >= 0 && i < drivers->array.n_items; i++)
		r = set(pool, "SM", drivers->array.items[i]->string, driver_facts(), fault);
	return r;
}

/* other_config belongs to clients, but for these two keys, which they read. */
static int refresh_times(struct pool_db *pool, const struct work *work, struct fault *fault)
{
	const char *host = work->inventory.host_ref;
	char *boot CLEANUP_FREE = xasprintf("%" PRId64 ".", work->boot_time);
	char *start CLEANUP_FREE = xasprintf("%" PRId64 ".", clock_wall_sec());
	int r = object_map_set(pool, "host", host, "other_config", "boot_time", boot, fault);

	if (r >= 0)
		r = object_map_set(
			pool, "host", host, "other_config", "agent_start_time", start, fault);
	return r;
}

static int store_metrics(struct pool_db *pool, const char *host_ref, const struct value *metrics,
	struct fault *fault)
{
	char *ref CLEANUP_FREE = NULL;
	int r = object_get_string(pool, "host", host_ref, "metrics", &ref, fault);

	return r < 0 ? r : object_set_fields(pool, "host_metrics", ref, metrics, fault);
}

static int refresh_all(struct pool_db *pool, const struct work *work, struct fault *fault)
{
	const struct inventory *inventory = &work->inventory;
	int r = object_set_fields(pool, "host", inventory->host_ref, work->host, fault);

	if (r >= 0 && !work->member)
		r = set(pool, "pool", inventory->pool_ref, pool_facts(work), fault);
	if (r >= 0)
		r = refresh_times(pool, work, fault);
	if (r >= 0)
		r = refresh_pifs(pool, work, fault);
	if (r >= 0 && !work->member)
		r = refresh_driver(pool, fault);
	return r < 0 ? r : store_metrics(pool, inventory->host_ref, work->metrics, fault);
}

static int ensure(struct pool_db *pool, void *arg, struct fault *fault)
{
	struct work *work = arg;
	struct inventory *inventory = &work->inventory;
	struct value *pools CLEANUP_VALUE = NULL;
	int r = object_get_all(pool, "pool", &pools, fault);

	if (r < 0)
		return r;
	if (!pools->array.n_items) {
		r = create_all(pool, work, fault);
		return r < 0 ? r : refresh_all(pool, work, fault);
	}
	inventory->pool_ref = xstrdup(pools->array.items[0]->string);
	if (work->member)
		inventory->host_ref = xstrdup(work->member);
	else
		r = object_get_string(
			pool, "pool", inventory->pool_ref, "master", &inventory->host_ref, fault);
	return r < 0 ? r : refresh_all(pool, work, fault);
}

int inventory_ensure(struct pool_db *pool, const struct config *config, const char *member,
	struct inventory *ret_inventory, struct fault *fault)
{
	/* A PIF has a numeric address; when peers are given a name, it is the one that the name is
	 * for as far as the configuration tells. */
	const char *ip = is_numeric(config->address) ? config->address : config->listen_host;
	struct work work CLEANUP(work_clear) = {
		.config = config,
		.member = member,
		.host = host_facts(config),
		.metrics = metrics_facts(),
		.boot_time = machine_boot_time(),
		.ip = xstrdup(ip),
	};

	/* A member is live when it ticks: by then it has stored what runs there. */
	if (member)
		value_unset(work.metrics, "live");
	machine_find_link(ip, &work.link);
	int r = pool_db_transaction(pool, ensure, &work, fault);
	if (r < 0)
		return r;
	*ret_inventory = work.inventory;
	work.inventory = (struct inventory){0};
	return 0;
}

int inventory_tick(struct pool_db *pool, const char *host_ref, struct fault *fault)
{
	struct value *metrics CLEANUP_VALUE = metrics_facts();

	return store_metrics(pool, host_ref, metrics, fault);
}
