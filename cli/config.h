/* SPDX-License-Identifier: Apache-2.0 */
/* The user's configuration: which servers there are, how to log in to them, and which certificate
 * to expect. It holds passwords, so a file that others may read is refused. See ferry(1). */
#ifndef FERRY_CLI_CONFIG_H
#define FERRY_CLI_CONFIG_H

#include "base/cleanup.h"
#include "base/fault.h"

#include <stddef.h>

/* What is not set is NULL. */
struct server {
	char *name;
	char *url;
	char *user;
	char *password;
	char *fingerprint; /* of its key: 64 lower-case hex digits */
	char *ca_file;
};

struct config {
	char *path; /* of the file; it need not exist */
	char *default_server;
	struct server *servers;
	size_t n_servers;
};

/* Reads path; NULL: $FERRY_CONFIG, the user's file, or the system's, the first that there is. No
 * file at all is an empty configuration, unless it was named. */
int config_load(const char *path, struct config **ret_config, struct fault *fault);
struct config *config_free(struct config *config);

/* The server of that name, or NULL. */
const struct server *config_server(const struct config *config, const char *name);

/* Whether the text is a URL that can be called: https://HOST[:PORT][/...]. */
int config_check_url(const char *url, struct fault *fault);

/* Writes the fingerprint into the section of the server, which is made, with the URL, when it is
 * missing. All other lines stay as they are. The file is replaced at once, with mode 0600. */
int config_pin(const struct config *config, const char *name, const char *url,
	const char *fingerprint, struct fault *fault);

DEFINE_CLEANUP(struct config *, config_free)
#define CLEANUP_CONFIG CLEANUP(cleanup_config_free)

#endif
