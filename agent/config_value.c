/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config_value.h"

#include "base/alloc.h"
#include "base/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

static const struct {
	const char *name;
	enum log_level level;
} levels[] = {
	{"error", LOG_LEVEL_ERROR},
	{"warn", LOG_LEVEL_WARN},
	{"info", LOG_LEVEL_INFO},
	{"debug", LOG_LEVEL_DEBUG},
};

static char **text_member(const struct config_key *key, struct config *config)
{
	return (char **)((char *)config + key->offset);
}

static uint64_t *number_member(const struct config_key *key, struct config *config)
{
	return (uint64_t *)((char *)config + key->offset);
}

static void set_text(char **member, const char *text)
{
	free(*member);
	*member = xstrdup(text);
}

static bool is_numeric_address(const char *text)
{
	struct in6_addr address;

	return inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1;
}

static bool has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return true;
	return false;
}

static bool is_host_name(const char *text)
{
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") ==
		       strlen(text) &&
	       *text != '-' && *text != '.';
}

static bool text_is_allowed(const struct config_key *key, const char *text)
{
	if (has_control(text) || !utf8_is_valid(text, strlen(text)) || strlen(text) > key->max)
		return false;
	switch (key->type) {
	case CONFIG_PATH:
		return text[0] == '/';
	case CONFIG_HOST:
		return is_numeric_address(text) || is_host_name(text);
	case CONFIG_NAME:
		return true;
	default:
		return *text && !strchr(text, ' ');
	}
}

static int parse_listen(const char *text, struct config *config)
{
	char *host CLEANUP_FREE = NULL;
	uint16_t port;
	int r = parse_address(text, &host, &port);

	if (r < 0)
		return r;
	if (!is_numeric_address(host))
		return -EINVAL;
	set_text(&config->listen, text);
	set_text(&config->listen_host, host);
	config->listen_port = port;
	return 0;
}

static int parse_level(const char *text, enum log_level *ret_level)
{
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		if (strcmp(levels[i].name, text) == 0) {
			*ret_level = levels[i].level;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_switch(const char *text, uint64_t *ret_value)
{
	bool is_on = strcmp(text, "on") == 0;

	if (!is_on && strcmp(text, "off") != 0)
		return -EINVAL;
	*ret_value = is_on;
	return 0;
}

static int parse_number(const struct config_key *key, const char *text, uint64_t *ret_value)
{
	uint64_t value;
	int r = key->type == CONFIG_DURATION ? parse_duration(text, &value)
		: key->type == CONFIG_SIZE   ? parse_size(text, &value)
					     : parse_uint64(text, &value);

	if (r < 0)
		return r;
	if (!(value == 0 && key->zero) && (value < key->min || value > key->max))
		return -ERANGE;
	if (key->step && value % key->step)
		return -EINVAL;
	*ret_value = value;
	return 0;
}

int config_value_parse(const struct config_key *key, const char *text, struct config *config)
{
	switch (key->type) {
	case CONFIG_TEXT:
	case CONFIG_NAME:
	case CONFIG_PATH:
	case CONFIG_HOST:
		if (!text_is_allowed(key, text))
			return -EINVAL;
		set_text(text_member(key, config), text);
		return 0;
	case CONFIG_NUMERIC:
		if (!is_numeric_address(text))
			return -EINVAL;
		set_text(text_member(key, config), text);
		return 0;
	case CONFIG_LISTEN:
		return parse_listen(text, config);
	case CONFIG_LEVEL:
		return parse_level(text, &config->log_level);
	case CONFIG_SWITCH:
		return parse_switch(text, number_member(key, config));
	case CONFIG_COUNT:
	case CONFIG_DURATION:
	case CONFIG_SIZE:
		return parse_number(key, text, number_member(key, config));
	}
	return -EINVAL;
}

/* The largest unit that says the value exactly. */
static char *format_number(enum config_type type, uint64_t value)
{
	static const struct {
		enum config_type type;
		const char *suffix;
		uint64_t factor;
	} units[] = {
		{CONFIG_DURATION, "d", UINT64_C(86400000000)},
		{CONFIG_DURATION, "h", UINT64_C(3600000000)},
		{CONFIG_DURATION, "min", UINT64_C(60000000)},
		{CONFIG_DURATION, "s", UINT64_C(1000000)},
		{CONFIG_DURATION, "ms", UINT64_C(1000)},
		{CONFIG_DURATION, "us", UINT64_C(1)},
		{CONFIG_SIZE, "T", UINT64_C(1) << 40},
		{CONFIG_SIZE, "G", UINT64_C(1) << 30},
		{CONFIG_SIZE, "M", UINT64_C(1) << 20},
		{CONFIG_SIZE, "K", UINT64_C(1) << 10},
	};

	for (size_t i = 0; value && i < ARRAY_SIZE(units); i++)
		if (units[i].type == type && value % units[i].factor == 0)
			return xasprintf("%" PRIu64 "%s", value / units[i].factor, units[i].suffix);
	return xasprintf("%" PRIu64, value);
}

static char *number_allowed(const struct config_key *key)
{
	struct buf out CLEANUP_BUF = BUF_INIT;
	char *min CLEANUP_FREE = format_number(key->type, key->min);
	char *max CLEANUP_FREE = format_number(key->type, key->max);

	if (key->zero)
		buf_printf(&out, "0 (%s) or ", key->zero);
	buf_append_string(&out, key->type == CONFIG_DURATION ? "a duration"
				: key->type == CONFIG_SIZE   ? "a size"
							     : "a number");
	buf_printf(&out, " from %s to %s", min, max);
	if (key->type == CONFIG_DURATION)
		buf_append_string(&out, ", with the unit us, ms, s, min, h or d (none: s)");
	if (key->type == CONFIG_SIZE)
		buf_append_string(&out, ", in bytes or with the unit K, M, G or T");
	if (key->step) {
		char *step CLEANUP_FREE = format_number(key->type, key->step);
		buf_printf(&out, ", a multiple of %s", step);
	}
	return buf_take_string(&out);
}

char *config_value_allowed(const struct config_key *key)
{
	switch (key->type) {
	case CONFIG_TEXT:
		return xasprintf("a name without spaces, at most %" PRIu64 " bytes", key->max);
	case CONFIG_NAME:
		return xasprintf(
			"UTF-8 text of at most %" PRIu64 " bytes; empty: the hostname", key->max);
	case CONFIG_PATH:
		return xasprintf("an absolute path of at most %" PRIu64 " bytes", key->max);
	case CONFIG_LISTEN:
		return xstrdup("a numeric address and a port from 0 (any free one) to 65535, as in "
			       "192.0.2.1:443 or [2001:db8::1]:443");
	case CONFIG_NUMERIC:
		return xstrdup("a numeric IPv4 or IPv6 address, as 192.0.2.1 or 2001:db8::1");
	case CONFIG_HOST:
		return xstrdup(
			"a numeric address or a host name, without a port; empty: worked out "
			"from listen");
	case CONFIG_LEVEL:
		return xstrdup("error, warn, info or debug");
	case CONFIG_SWITCH:
		return xstrdup("on or off");
	case CONFIG_COUNT:
	case CONFIG_DURATION:
	case CONFIG_SIZE:
		break;
	}
	return number_allowed(key);
}

char *config_value_format(const struct config_key *key, const struct config *config)
{
	/* The members are only read; config_value_parse needs the same helpers to write. */
	struct config *members = (struct config *)config;

	switch (key->type) {
	case CONFIG_SWITCH:
		return xstrdup(*number_member(key, members) ? "on" : "off");
	case CONFIG_COUNT:
	case CONFIG_DURATION:
	case CONFIG_SIZE:
		return format_number(key->type, *number_member(key, members));
	case CONFIG_LEVEL:
		for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
			if (levels[i].level == config->log_level)
				return xstrdup(levels[i].name);
		return xstrdup("");
	default:
		return xstrdup(*text_member(key, members));
	}
}

void config_value_clear(const struct config_key *key, struct config *config)
{
	switch (key->type) {
	case CONFIG_SWITCH:
	case CONFIG_COUNT:
	case CONFIG_DURATION:
	case CONFIG_SIZE:
	case CONFIG_LEVEL:
		return;
	default:
		free(*text_member(key, config));
		*text_member(key, config) = NULL;
	}
}

/* --- What is worked out from the machine
 * ------------------------------------------------------------ */

/* The first address of an interface that is up, other than loopback and link-local ones. */
static char *find_address(int family)
{
	struct ifaddrs *list = NULL;
	char text[INET6_ADDRSTRLEN] = "";

	if (getifaddrs(&list) < 0)
		return NULL;
	for (const struct ifaddrs *at = list; at && !*text; at = at->ifa_next) {
		if (!at->ifa_addr || at->ifa_addr->sa_family != family ||
			!(at->ifa_flags & IFF_UP) || (at->ifa_flags & IFF_LOOPBACK))
			continue;
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)at->ifa_addr;
		const struct sockaddr_in *in4 = (const struct sockaddr_in *)at->ifa_addr;
		if (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
			continue;
		inet_ntop(family,
			family == AF_INET6 ? (const void *)&in6->sin6_addr
					   : (const void *)&in4->sin_addr,
			text, sizeof(text));
	}
	freeifaddrs(list);
	return *text ? xstrdup(text) : NULL;
}

static char *complete_address(const char *listen_host)
{
	bool any4 = strcmp(listen_host, "0.0.0.0") == 0;
	struct in6_addr address;
	bool any6 = inet_pton(AF_INET6, listen_host, &address) == 1 &&
		    IN6_IS_ADDR_UNSPECIFIED(&address);

	if (!any4 && !any6)
		return xstrdup(listen_host);
	char *found = any6 ? find_address(AF_INET6) : NULL;
	if (!found)
		found = find_address(AF_INET);
	/* A machine without a network can still serve itself. */
	return found ? found : xstrdup(any6 ? "::1" : "127.0.0.1");
}

void config_value_complete(struct config *config)
{
	char hostname[256] = "";

	if (gethostname(hostname, sizeof(hostname) - 1) < 0 || !*hostname)
		strcpy(hostname, "localhost");
	if (!*config->pool_name)
		set_text(&config->pool_name, hostname);
	if (!*config->host_name)
		set_text(&config->host_name, hostname);
	if (*config->address)
		return;
	char *address CLEANUP_FREE = complete_address(config->listen_host);
	set_text(&config->address, address);
}
