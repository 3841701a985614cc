/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/lobby.h"

#include "agent/api/api.h"
#include "agent/home.h"
#include "base/alloc.h"
#include "xmlrpc/server.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#define N_WORKERS      4
#define MAX_BODY_BYTES (1u << 20)

struct lobby {
	struct api *api;
	struct server *server;
};

static int start_api(struct lobby *lobby, const struct lobby_params *params, struct fault *fault)
{
	char *coordinator CLEANUP_FREE = home_address(params->membership->url, params->url);
	const struct api_params api = {
		.host_ref = params->membership->host,
		.pool_ref = "",
		.login_delay_usec = params->config->login_delay_usec,
		.pam_socket = params->config->pam_socket,
		.state_dir = params->config->state_dir,
		.url = params->url,
		.fingerprint = params->fingerprint,
		.coordinator = coordinator,
		.membership = params->membership,
		.is_waiting = true,
		.restart = params->decided,
		.restart_arg = params->arg,
	};

	return api_new(&api, &lobby->api, fault);
}

int lobby_open(const struct lobby_params *params, struct lobby **ret_lobby, struct fault *fault)
{
	struct lobby *lobby = xcalloc(1, sizeof(*lobby));
	int r = start_api(lobby, params, fault);

	if (r == 0 && listen(params->listen_fd, SOMAXCONN) < 0) {
		int error = -errno;
		r = fault_errno(fault, error, "cannot listen on %s", params->config->listen);
	}
	if (r == 0) {
		const struct server_params server = {
			.listen_fd = fcntl(params->listen_fd, F_DUPFD_CLOEXEC, 3),
			.certificate_file = params->certificate,
			.key_file = params->key,
			.n_workers = N_WORKERS,
			.max_connections = (unsigned)params->config->max_connections,
			.max_body_bytes = MAX_BODY_BYTES,
			.dispatcher = api_dispatcher(lobby->api),
		};
		r = server_start(&server, &lobby->server, fault);
	}
	if (r < 0) {
		lobby_close(lobby);
		return r;
	}
	*ret_lobby = lobby;
	return 0;
}

struct lobby *lobby_close(struct lobby *lobby)
{
	if (!lobby)
		return NULL;
	if (lobby->server)
		server_close(lobby->server);
	if (lobby->api)
		api_close(lobby->api);
	if (lobby->server)
		server_stop(lobby->server);
	api_free(lobby->api);
	free(lobby);
	return NULL;
}
