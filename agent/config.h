/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of ferryd: one INI file, every key of which stands in one table with its type,
 * limits and default. docs/man/ferryd.conf.5 documents each; a test holds the page to the table. */
#ifndef FERRY_AGENT_CONFIG_H
#define FERRY_AGENT_CONFIG_H

#include "base/buf.h"
#include "base/fault.h"
#include "base/log.h"

#include <stdint.h>

#define CONFIG_DEFAULT_FILE "/etc/ferry/ferryd.conf"

/* All strings are owned and never NULL. Durations in microseconds. */
struct config {
	/* [ferryd] */
	char *user;
	char *state_dir;
	char *run_dir;
	char *listen; /* as written; listen_host and listen_port are its parts */
	char *listen_host;
	uint16_t listen_port;
	char *address; /* "" in the file: worked out by config_load, so never "" */
	char *data_address;
	uint64_t data_port; /* 0: the system's choice */
	uint64_t data_tls;  /* 0: disks are sent in the clear, to tgtd itself */
	enum log_level log_level;
	char *pool_name;
	char *host_name;
	uint64_t workers;
	uint64_t max_connections;
	uint64_t session_timeout_usec;
	uint64_t login_delay_usec;
	char *pam_socket;

	/* [migration] */
	uint64_t max_sending;
	uint64_t max_queued;
	uint64_t heartbeat_usec;
	uint64_t lease_usec;
	uint64_t abandon_usec;
	uint64_t peer_timeout_usec;
	uint64_t max_downtime_usec;
	uint64_t bandwidth_bytes_per_sec; /* 0: unlimited */

	/* [pool] */
	uint64_t pool_copy_usec;

	/* [copy]; 0: the copier's own default */
	uint64_t copy_sessions;
	uint64_t copy_request_bytes;
	uint64_t copy_in_flight_bytes;

	/* [tgt] */
	char *tgtd;
	uint64_t tgtd_threads;

	/* [image] */
	char *qemu_img;
	char *qemu_nbd;

	/* [guest] */
	char *qemu;
	char *watchdog;
	uint64_t shutdown_timeout_usec;
};

#define CONFIG_INIT                                                                                \
	{                                                                                          \
		0                                                                                  \
	}

/* Reads the file and fills in what it leaves out; *config must be CONFIG_INIT. Blocks on the file
 * only. -EINVAL: the fault's text has one line for each mistake, "file:line: ..." with the key, the
 * value and what is allowed. Another negative errno: the file cannot be read. */
int config_load(const char *path, struct config *config, struct fault *fault);
void config_clear(struct config *config);

/* Appends the whole configuration as a file of its own form: every key, with the value in use. */
void config_print(const struct config *config, struct buf *out);

#define CLEANUP_CONFIG CLEANUP(config_clear)

#endif
