/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/daemon.h"

#include "agent/api/api.h"
#include "agent/config_supervisor.h"
#include "agent/ground.h"
#include "agent/home.h"
#include "agent/inventory.h"
#include "agent/listener.h"
#include "agent/lobby.h"
#include "agent/machine.h"
#include "agent/migrate/receiver.h"
#include "agent/migrate/supervisor.h"
#include "agent/notify.h"
#include "agent/pool/member.h"
#include "agent/pool/reign.h"
#include "agent/pool/witness.h"
#include "agent/privileges.h"
#include "agent/signals.h"
#include "agent/storage/storage.h"
#include "agent/tunnel/tunnel.h"
#include "agent/vm/guests.h"
#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/inject.h"
#include "base/io.h"
#include "base/log.h"
#include "schema/agent_db.h"
#include "schema/pool_db.h"
#include "xmlrpc/server.h"
#include "xmlrpc/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often sizes of SRs and the host's memory are brought up to date. */
#define TICK_USEC (30 * USEC_PER_SEC)
/* A migration's manifest is the largest request; it grows with the VM's disks, not with their size.
 */
#define MAX_BODY_BYTES (16u << 20)
/* Between a host's joining or leaving a pool and its new start: the answer goes out first. */
#define RESTART_USEC (USEC_PER_SEC / 2)
/* What serve() says when it is time. */
#define RESTART 1

/* Members in the order in which they are made. */
struct daemon {
	const struct config *config;
	const char *config_path;
	int signal_fd;
	int state_lock;
	int run_lock;
	int restart_fd; /* readable: this host has joined or left a pool */
	int listen_fd;  /* each server has a copy of it */
	bool is_announced;
	char *url;
	char *url_file;
	char *certificate;
	char *key;
	char *fingerprint;
	struct lobby *lobby; /* while it waits for its coordinator */
	struct home home;
	struct pool_db *pool; /* home's */
	struct agent_db *agent;
	struct inventory inventory;
	struct storage storage;
	struct tunnel *tunnel;
	struct witness *witness;
	struct supervisor_params supervisor_params; /* the supervisor keeps a pointer to it */
	struct supervisor *supervisor;
	struct guests *guests;
	struct api *api;
	struct server *server;
	struct member *member; /* NULL: this host is the coordinator */
};

/* --- Ground -------------------------------------------------------------------------------------
 */

static int open_events(struct daemon *daemon, struct fault *fault)
{
	int r = signals_open(&daemon->signal_fd, fault);

	if (r < 0)
		return r;
	daemon->restart_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (daemon->restart_fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot make an event");
	}
	return 0;
}

/* Of the parts that have threads of their own. */
static void ask_for_restart(void *arg)
{
	struct daemon *daemon = arg;
	const uint64_t one = 1;

	if (write(daemon->restart_fd, &one, sizeof(one)) < 0)
		log_error("NO_RESTART", "error=\"%s\"", strerror(errno));
}

static int start_ground(struct daemon *daemon, struct fault *fault)
{
	const struct config *config = daemon->config;
	int r = open_events(daemon, fault);

	umask(077);
	ground_raise_file_limit(config);
	if (r == 0)
		r = ground_ensure_directory(config->state_dir, "state_dir", fault);
	if (r == 0)
		r = ground_ensure_directory(config->run_dir, "run_dir", fault);
	if (r == 0)
		r = ground_lock_directory(
			config->state_dir, "state_dir", &daemon->state_lock, fault);
	if (r == 0)
		r = ground_lock_directory(config->run_dir, "run_dir", &daemon->run_lock, fault);
	if (r == 0)
		r = listener_open(config, &daemon->listen_fd, &daemon->url, fault);
	privileges_forget_bind();
	return r;
}

/* --- State --------------------------------------------------------------------------------------
 */

/* Never a reason not to start: an SR that is away concerns its own disks alone. */
static void log_failure(const char *id, const char *what, const struct fault *fault)
{
	char *text CLEANUP_FREE = fault_describe(fault);

	log_warn(id, "%s error=\"%s\"", what, text);
}

/* A host that is joining is nobody's yet. */
static void open_lobby(struct daemon *daemon, const struct membership *membership)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	const struct lobby_params params = {
		.config = daemon->config,
		.membership = membership,
		.listen_fd = daemon->listen_fd,
		.url = daemon->url,
		.certificate = daemon->certificate,
		.key = daemon->key,
		.fingerprint = daemon->fingerprint,
		.decided = ask_for_restart,
		.arg = daemon,
	};

	if (membership->kind != MEMBERSHIP_JOINING &&
		lobby_open(&params, &daemon->lobby, &fault) < 0)
		log_failure("NO_LOBBY", "this host cannot be told to take over", &fault);
}

/* The daemon counts as started: systemd does not end it while it waits. */
static bool wait_for_coordinator(
	void *arg, uint64_t duration_usec, const struct membership *membership, const char *why)
{
	struct daemon *daemon = arg;
	struct pollfd fds[] = {{.fd = daemon->signal_fd, .events = POLLIN},
		{.fd = daemon->restart_fd, .events = POLLIN}};
	struct signalfd_siginfo info;
	uint64_t asked;

	if (!daemon->is_announced) {
		log_warn("COORDINATOR_AWAY", "error=\"%s\": waiting for it", why);
		open_lobby(daemon, membership);
		notify_ready("waiting for the pool's coordinator");
	}
	daemon->is_announced = true;
	if (cancel_poll(NULL, fds, ARRAY_SIZE(fds), clock_deadline(duration_usec)) <= 0)
		return true;
	if (fds[1].revents && read(daemon->restart_fd, &asked, sizeof(asked)) > 0) {
		/* The answer goes out first; whom it waits for then is another. */
		cancel_sleep(NULL, RESTART_USEC);
		daemon->lobby = lobby_close(daemon->lobby);
		daemon->is_announced = false;
	}
	return !fds[0].revents || read(daemon->signal_fd, &info, sizeof(info)) != sizeof(info) ||
	       info.ssi_signo == SIGHUP;
}

static int open_pool(struct daemon *daemon, struct fault *fault)
{
	const struct home_params params = {
		.config = daemon->config,
		.url = daemon->url,
		.fingerprint = daemon->fingerprint,
		.wait = wait_for_coordinator,
		.arg = daemon,
	};
	int r = home_open(&params, &daemon->home, fault);

	daemon->lobby = lobby_close(daemon->lobby);
	daemon->is_announced = false;
	daemon->pool = daemon->home.pool;
	return r < 0 ? r
		     : inventory_ensure(daemon->pool, daemon->config, daemon->home.membership.host,
			       &daemon->inventory, fault);
}

/* The other hosts reach this one there. A member's coordinator stores it when it is greeted. */
static int store_link(struct daemon *daemon, struct fault *fault)
{
	const struct host_link link = {
		.host = daemon->inventory.host_ref,
		.url = daemon->url,
		.fingerprint = daemon->fingerprint,
		.secret = (char *)"",
	};

	return daemon->home.link ? 0 : host_link_set(daemon->pool, &link, fault);
}

static int open_databases(struct daemon *daemon, struct fault *fault)
{
	char *agent_file CLEANUP_FREE = xasprintf("%s/agent.db", daemon->config->state_dir);
	int r = open_pool(daemon, fault);

	if (r >= 0)
		r = INJECT_FAULT(fault, "daemon.start.pool");
	if (r >= 0)
		r = store_link(daemon, fault);
	if (r >= 0)
		r = agent_db_open(agent_file, &daemon->agent, fault);
	if (r < 0)
		return r;
	daemon->storage = (struct storage){
		.pool = daemon->pool,
		.agent = daemon->agent,
		.host_ref = daemon->inventory.host_ref,
		.qemu_img = daemon->config->qemu_img,
	};
	return 0;
}

static void tick(struct daemon *daemon)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *srs CLEANUP_VALUE = NULL;

	/* A member's comes with its ticks. */
	if (!daemon->home.link &&
		inventory_tick(daemon->pool, daemon->inventory.host_ref, &fault) < 0)
		log_failure("TICK_FAILED", "object=host_metrics", &fault);
	if (object_get_all(daemon->pool, "SR", &srs, &fault) < 0) {
		log_failure("TICK_FAILED", "object=SR", &fault);
		return;
	}
	for (size_t i = 0; i < srs->array.n_items; i++) {
		const char *sr = srs->array.items[i]->string;
		/* One unplugged, or forgotten since the list was made, is none to refresh. */
		if (sr_refresh(&daemon->storage, sr, &fault) < 0 &&
			!fault_is(&fault, "SR_NOT_ATTACHED") && !fault_is(&fault, "HANDLE_INVALID"))
			log_failure("SR_NOT_REFRESHED", sr, &fault);
	}
}

static int start_state(struct daemon *daemon, struct fault *fault)
{
	const struct config *config = daemon->config;
	struct fault left CLEANUP_FAULT = FAULT_INIT;

	daemon->certificate = xasprintf("%s/tls.crt", config->state_dir);
	daemon->key = xasprintf("%s/tls.key", config->state_dir);
	int r = tls_ensure_certificate(
		daemon->certificate, daemon->key, config->host_name, config->address, fault);
	if (r >= 0)
		r = tls_fingerprint(daemon->certificate, &daemon->fingerprint, fault);
	if (r >= 0)
		r = open_databases(daemon, fault);
	if (r < 0)
		return r;
	sr_recover_marks(&daemon->storage);
	if (storage_recover(&daemon->storage, "", &left) < 0)
		log_failure("STORAGE_NOT_SETTLED", "owner=daemon", &left);
	tick(daemon);
	return 0;
}

/* --- Services -----------------------------------------------------------------------------------
 */

static int secure(void *arg, struct cancel *cancel, struct fault *fault)
{
	struct daemon *daemon = arg;

	return witness_ask(daemon->witness, cancel, fault);
}

static struct supervisor *new_supervisor(struct daemon *daemon)
{
	daemon->witness = witness_new();
	if (daemon->home.link)
		witness_of_member(daemon->witness, daemon->home.link, daemon->config->state_dir);
	daemon->supervisor_params = (struct supervisor_params){
		.storage = &daemon->storage,
		.guests = daemon->guests,
		.tunnel = daemon->tunnel,
		.url = daemon->url,
		.fingerprint = daemon->fingerprint,
		.secure = secure,
		.secure_arg = daemon,
	};
	config_for_supervisor(daemon->config, &daemon->supervisor_params);
	return supervisor_new(&daemon->supervisor_params);
}

static int start_tunnel(struct daemon *daemon, struct fault *fault)
{
	const struct tunnel_params params = {
		.address = daemon->config->data_address,
		.port = (uint16_t)daemon->config->data_port,
		.certificate_file = daemon->certificate,
		.key_file = daemon->key,
	};

	return tunnel_start(&params, &daemon->tunnel, fault);
}

/* Before anything that may touch a disk: which guests run decides whose the disks are. */
static int start_guests(struct daemon *daemon, struct fault *fault)
{
	const struct guests_params params = {
		.storage = &daemon->storage,
		.run_dir = daemon->config->run_dir,
		.program = daemon->config->qemu,
		.shutdown_usec = daemon->config->shutdown_timeout_usec,
		.memory = machine_memory,
		.is_doubtful = reign_is_doubtful(daemon->config->state_dir),
	};
	int r = guests_new(&params, &daemon->guests, fault);
	const struct supervisor_params known = {
		.storage = &daemon->storage, .guests = daemon->guests};

	if (r == 0 && params.is_doubtful)
		r = receiver_redo(&known, fault);
	if (r == 0)
		r = guests_recover(daemon->guests, fault);
	if (r >= 0 && guests_are_known(daemon->guests))
		reign_trust(daemon->config->state_dir);
	return r;
}

static int start_member(struct daemon *daemon, struct fault *fault)
{
	const struct member_params params = {
		.link = daemon->home.link,
		.membership = &daemon->home.membership,
		.state_dir = daemon->config->state_dir,
		.copy_usec = daemon->config->pool_copy_usec,
		.memory = machine_memory,
		.ejected = ask_for_restart,
		.arg = daemon,
	};

	return daemon->home.link ? member_start(&params, &daemon->member, fault) : 0;
}

static int start_services(struct daemon *daemon, struct fault *fault)
{
	const struct config *config = daemon->config;
	const struct api_params api_params = {
		.storage = &daemon->storage,
		.supervisor = daemon->supervisor = new_supervisor(daemon),
		.guests = daemon->guests,
		.host_ref = daemon->inventory.host_ref,
		.pool_ref = daemon->inventory.pool_ref,
		.session_timeout_usec = config->session_timeout_usec,
		.login_delay_usec = config->login_delay_usec,
		.pam_socket = config->pam_socket,
		.state_dir = config->state_dir,
		.url = daemon->url,
		.fingerprint = daemon->fingerprint,
		.coordinator = daemon->home.coordinator_address,
		.membership = daemon->home.link ? &daemon->home.membership : NULL,
		.copy_usec = config->pool_copy_usec,
		.link = daemon->home.link,
		.witness = daemon->home.link ? NULL : daemon->witness,
		.restart = ask_for_restart,
		.restart_arg = daemon,
	};
	/* Migrations first: the tasks that stand for them are taken over by the API. */
	int r = supervisor_start(daemon->supervisor, fault);

	if (r >= 0)
		r = api_new(&api_params, &daemon->api, fault);
	if (r < 0)
		return r;
	/* The server before this one has shut it down, which leaves it bound: its port may be one
	 * that this process could not take again. */
	if (listen(daemon->listen_fd, SOMAXCONN) < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot listen on %s", config->listen);
	}
	const struct server_params server_params = {
		.listen_fd = fcntl(daemon->listen_fd, F_DUPFD_CLOEXEC, 3),
		.certificate_file = daemon->certificate,
		.key_file = daemon->key,
		.n_workers = (unsigned)config->workers,
		.max_connections = (unsigned)config->max_connections,
		.max_body_bytes = MAX_BODY_BYTES,
		.dispatcher = api_dispatcher(daemon->api),
		.streams = api_streams(daemon->api),
	};
	r = server_start(&server_params, &daemon->server, fault);
	return r < 0 ? r : start_member(daemon, fault);
}

static int announce(struct daemon *daemon, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/url", daemon->config->run_dir);
	char *line CLEANUP_FREE = xasprintf("%s\n", daemon->url);
	int r = io_replace_file(path, line, strlen(line), 0644);

	if (r < 0)
		return fault_errno(fault, r, "cannot write %s", path);
	daemon->url_file = TAKE_PTR(path);
	log_info("READY", "version=%s url=%s data_port=%u fingerprint=%s", FERRY_VERSION,
		daemon->url, (unsigned)tunnel_port(daemon->tunnel), daemon->fingerprint);
	notify_ready(daemon->url);
	return 0;
}

/* --- Life ---------------------------------------------------------------------------------------
 */

/* Returns 0 at SIGTERM or SIGINT, RESTART some time after ask_for_restart(). */
static int serve(struct daemon *daemon, struct fault *fault)
{
	uint64_t next_tick = clock_deadline(TICK_USEC);
	uint64_t restart_at = USEC_FOREVER;

	for (;;) {
		struct pollfd fds[] = {{.fd = daemon->signal_fd, .events = POLLIN},
			{.fd = daemon->restart_fd, .events = POLLIN}};
		uint64_t asked;
		int r = cancel_poll(NULL, fds, ARRAY_SIZE(fds), MIN(next_tick, restart_at));
		if (r < 0)
			return fault_errno(fault, r, "cannot wait for signals");
		if (clock_now_usec() >= restart_at)
			return RESTART;
		if (fds[1].revents && read(daemon->restart_fd, &asked, sizeof(asked)) > 0)
			restart_at = MIN(restart_at, clock_deadline(RESTART_USEC));
		if (fds[0].revents && signals_take(daemon->signal_fd, daemon->config_path))
			return 0;
		if (clock_now_usec() >= next_tick) {
			tick(daemon);
			next_tick = clock_deadline(TICK_USEC);
		}
	}
}

/* Close: nothing new comes in. Stop: what runs ends where it is. Free. */
static void stop_services(struct daemon *daemon)
{
	if (daemon->url_file)
		unlink(daemon->url_file);
	if (daemon->server)
		server_close(daemon->server);
	if (daemon->api)
		api_close(daemon->api);

	supervisor_close(daemon->supervisor);
	if (daemon->guests)
		guests_close(daemon->guests);
	daemon->server = server_stop(daemon->server);

	/* Threads of tasks may be on their way out of the supervisor until the api is gone. */
	daemon->api = api_free(daemon->api);
	daemon->supervisor = supervisor_stop(daemon->supervisor);
	daemon->tunnel = tunnel_stop(daemon->tunnel);
	daemon->guests = guests_free(daemon->guests);
	daemon->member = member_stop(daemon->member);
	daemon->witness = witness_free(daemon->witness);
	free(TAKE_PTR(daemon->url_file));
}

static void close_state(struct daemon *daemon)
{
	if (daemon->agent)
		agent_db_close(daemon->agent);
	daemon->agent = NULL;
	daemon->pool = NULL;
	home_close(&daemon->home);
	inventory_clear(&daemon->inventory);
	free(TAKE_PTR(daemon->fingerprint));
	free(TAKE_PTR(daemon->key));
	free(TAKE_PTR(daemon->certificate));
}

static void leave_ground(struct daemon *daemon)
{
	free(daemon->url);
	cleanup_close(&daemon->listen_fd);
	cleanup_close(&daemon->run_lock);
	cleanup_close(&daemon->state_lock);
	cleanup_close(&daemon->restart_fd);
	cleanup_close(&daemon->signal_fd);
}

/* A member whose coordinator went in the middle of its start waits, as one that starts without it
 * does. */
static bool has_lost_coordinator(struct daemon *daemon, const struct fault *why)
{
	bool is_new = false;

	if (!daemon->home.link)
		return false;
	return fault_is(why, "CANNOT_CONTACT_HOST") ||
	       member_greet(daemon->home.link, daemon->url, daemon->fingerprint,
		       &daemon->home.membership, &is_new, NULL) < 0;
}

static int start(struct daemon *daemon, struct fault *fault)
{
	int r = start_state(daemon, fault);

	if (r >= 0)
		r = start_tunnel(daemon, fault);
	if (r >= 0)
		r = start_guests(daemon, fault);
	if (r >= 0)
		r = start_services(daemon, fault);
	if (r >= 0)
		r = announce(daemon, fault);
	return r;
}

/* The life of this host in one pool. */
static int run_once(struct daemon *daemon, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	int r = start(daemon, &why);

	if (r < 0 && r != -ECANCELED && has_lost_coordinator(daemon, &why)) {
		log_failure("COORDINATOR_LOST", "while this host started", &why);
		r = RESTART;
	} else if (r < 0) {
		fault_move(fault, &why);
	}
	if (r >= 0 && r != RESTART)
		r = serve(daemon, fault);
	if (r != RESTART)
		notify_stopping();
	stop_services(daemon);
	close_state(daemon);
	if (r == RESTART)
		log_info("STARTING_ANEW", "this host looks for its coordinator");
	return r;
}

int daemon_run(const struct config *config, const char *config_path, struct fault *fault)
{
	struct daemon daemon = {
		.config = config,
		.config_path = config_path,
		.signal_fd = -1,
		.state_lock = -1,
		.run_lock = -1,
		.restart_fd = -1,
		.listen_fd = -1,
	};
	int r = start_ground(&daemon, fault);

	INJECT_OPEN(config->state_dir);
	if (r >= 0)
		do
			r = run_once(&daemon, fault);
		while (r == RESTART);
	leave_ground(&daemon);
	if (r == -ECANCELED)
		r = 0; /* stopped before it had started */
	if (r >= 0)
		log_info("STOPPED", "url=%s", config->listen);
	return r < 0 ? r : 0;
}
