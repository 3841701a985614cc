/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/daemon.h"

#include "agent/api/api.h"
#include "agent/inventory.h"
#include "agent/listener.h"
#include "agent/machine.h"
#include "agent/migrate/supervisor.h"
#include "agent/notify.h"
#include "agent/privileges.h"
#include "agent/storage/storage.h"
#include "agent/tunnel/tunnel.h"
#include "agent/vm/guests.h"
#include "base/alloc.h"
#include "base/cancel.h"
#include "base/clock.h"
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
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often sizes of SRs and the host's memory are brought up to date. */
#define TICK_USEC (30 * USEC_PER_SEC)
/* A migration's manifest is the largest request; it grows with the VM's disks, not with their size.
 */
#define MAX_BODY_BYTES (16u << 20)
/* Files that are open besides connections: databases, images, sockets of children. */
#define OTHER_FILES 512

/* Members in the order in which they are made. */
struct daemon {
	const struct config *config;
	const char *config_path;
	int signal_fd;
	int state_lock;
	int run_lock;
	int listen_fd; /* until the server has it */
	char *url;
	char *url_file;
	char *certificate;
	char *key;
	char *fingerprint;
	struct pool_db *pool;
	struct agent_db *agent;
	struct inventory inventory;
	struct storage storage;
	struct tunnel *tunnel;
	struct supervisor_params supervisor_params; /* the supervisor keeps a pointer to it */
	struct supervisor *supervisor;
	struct guests *guests;
	struct api *api;
	struct server *server;
};

/* --- Ground -------------------------------------------------------------------------------------
 */

static int block_signals(struct daemon *daemon, struct fault *fault)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) == 0)
		daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (daemon->signal_fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot watch for signals");
	}
	return 0;
}

/* Only a warning: a daemon with few clients works with few files. */
static void raise_file_limit(const struct config *config)
{
	struct rlimit limit;
	rlim_t wanted = config->max_connections + OTHER_FILES;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = MIN(limit.rlim_max, wanted);
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < wanted)
		log_warn("FEW_FILES",
			"limit=%llu wanted=%llu: raise LimitNOFILE, or lower "
			"max_connections",
			(unsigned long long)limit.rlim_cur, (unsigned long long)wanted);
}

static int ensure_directory(const char *path, const char *key, struct fault *fault)
{
	int r = io_ensure_dir(path, 0700);

	if (r == 0 && access(path, R_OK | W_OK | X_OK) < 0)
		r = -errno;
	if (r < 0)
		return fault_text(fault, r,
			"%s ([ferryd] %s) must be a directory that uid %u can write: %s", path, key,
			(unsigned)geteuid(), strerror(-r));
	return 0;
}

/* Two daemons on one directory would each take the other's migrations for dead ones. */
static int lock_directory(const char *dir, const char *key, int *ret_fd, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/lock", dir);
	int fd CLEANUP_CLOSE = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	char pid[32] = "";

	if (fd < 0) {
		int error = -errno;
		return fault_errno(fault, error, "cannot open the lock %s", path);
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int error = -errno;
		if (error != -EWOULDBLOCK)
			return fault_errno(fault, error, "cannot lock %s", path);
		ssize_t n = read(fd, pid, sizeof(pid) - 1);
		pid[n > 0 ? n : 0] = '\0';
		pid[strspn(pid, "0123456789")] = '\0';
		return fault_text(fault, -EBUSY,
			"another ferryd (process %s) uses %s; each needs a %s of its own",
			*pid ? pid : "unknown", dir, key);
	}
	int length = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)length, 0) != length) {
		int error = -errno;
		return fault_errno(fault, error, "cannot write %s", path);
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int start_ground(struct daemon *daemon, struct fault *fault)
{
	const struct config *config = daemon->config;
	int r = block_signals(daemon, fault);

	umask(077);
	raise_file_limit(config);
	if (r == 0)
		r = ensure_directory(config->state_dir, "state_dir", fault);
	if (r == 0)
		r = ensure_directory(config->run_dir, "run_dir", fault);
	if (r == 0)
		r = lock_directory(config->state_dir, "state_dir", &daemon->state_lock, fault);
	if (r == 0)
		r = lock_directory(config->run_dir, "run_dir", &daemon->run_lock, fault);
	if (r == 0)
		r = listener_open(config, &daemon->listen_fd, &daemon->url, fault);
	privileges_forget_bind();
	return r;
}

/* --- State --------------------------------------------------------------------------------------
 */

static int open_databases(struct daemon *daemon, struct fault *fault)
{
	const char *dir = daemon->config->state_dir;
	char *pool_file CLEANUP_FREE = xasprintf("%s/pool.db", dir);
	char *agent_file CLEANUP_FREE = xasprintf("%s/agent.db", dir);
	int r = pool_db_open(pool_file, &daemon->pool, fault);

	if (r >= 0)
		r = agent_db_open(agent_file, &daemon->agent, fault);
	if (r >= 0)
		r = inventory_ensure(daemon->pool, daemon->config, &daemon->inventory, fault);
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

/* Never a reason not to start: an SR that is away concerns its own disks alone. */
static void log_failure(const char *id, const char *what, const struct fault *fault)
{
	char *text CLEANUP_FREE = fault_describe(fault);

	log_warn(id, "%s error=\"%s\"", what, text);
}

static void tick(struct daemon *daemon)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct value *srs CLEANUP_VALUE = NULL;

	if (inventory_tick(daemon->pool, daemon->inventory.host_ref, &fault) < 0)
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
	int r = open_databases(daemon, fault);

	if (r < 0)
		return r;
	if (storage_recover(&daemon->storage, "", &left) < 0)
		log_failure("STORAGE_NOT_SETTLED", "owner=daemon", &left);
	tick(daemon);
	daemon->certificate = xasprintf("%s/tls.crt", config->state_dir);
	daemon->key = xasprintf("%s/tls.key", config->state_dir);
	r = tls_ensure_certificate(
		daemon->certificate, daemon->key, config->host_name, config->address, fault);
	if (r >= 0)
		r = tls_fingerprint(daemon->certificate, &daemon->fingerprint, fault);
	return r;
}

/* --- Services -----------------------------------------------------------------------------------
 */

static struct supervisor *new_supervisor(struct daemon *daemon)
{
	const struct config *config = daemon->config;

	daemon->supervisor_params = (struct supervisor_params){
		.storage = &daemon->storage,
		.guests = daemon->guests,
		.tunnel = daemon->tunnel,
		.watchdog = config->watchdog,
		.state_dir = config->state_dir,
		.run_dir = config->run_dir,
		.url = daemon->url,
		.fingerprint = daemon->fingerprint,
		.data_address = config->data_address,
		.tgtd = config->tgtd,
		.tgtd_threads = (unsigned)config->tgtd_threads,
		.qemu_nbd = config->qemu_nbd,
		.copy_sessions = (unsigned)config->copy_sessions,
		.copy_request_bytes = config->copy_request_bytes,
		.copy_in_flight_bytes = config->copy_in_flight_bytes,
		.bandwidth_bytes_per_sec = config->bandwidth_bytes_per_sec,
		.max_sending = (unsigned)config->max_sending,
		.max_downtime_usec = config->max_downtime_usec,
		.heartbeat_usec = config->heartbeat_usec,
		.lease_usec = config->lease_usec,
		.abandon_usec = config->abandon_usec,
		.peer_timeout_usec = config->peer_timeout_usec,
	};

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
	};
	int r = guests_new(&params, &daemon->guests, fault);

	return r < 0 ? r : guests_recover(daemon->guests, fault);
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
	};
	/* Migrations first: the tasks that stand for them are taken over by the API. */
	int r = supervisor_start(daemon->supervisor, fault);

	if (r >= 0)
		r = api_new(&api_params, &daemon->api, fault);
	if (r < 0)
		return r;
	const struct server_params server_params = {
		.listen_fd = TAKE_FD(daemon->listen_fd),
		.certificate_file = daemon->certificate,
		.key_file = daemon->key,
		.n_workers = (unsigned)config->workers,
		.max_connections = (unsigned)config->max_connections,
		.max_body_bytes = MAX_BODY_BYTES,
		.dispatcher = api_dispatcher(daemon->api),
	};
	return server_start(&server_params, &daemon->server, fault);
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

static void reload_log_level(const struct daemon *daemon)
{
	struct config config CLEANUP_CONFIG = CONFIG_INIT;
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (config_load(daemon->config_path, &config, &fault) < 0) {
		log_failure("RELOAD_FAILED", "the log level stays as it is", &fault);
		return;
	}
	log_set_level(config.log_level);
	log_info("RELOADED", "log_level=%d", (int)config.log_level);
}

/* Returns at SIGTERM or SIGINT. */
static int serve(struct daemon *daemon, struct fault *fault)
{
	uint64_t next_tick = clock_deadline(TICK_USEC);

	for (;;) {
		struct pollfd pollfd = {.fd = daemon->signal_fd, .events = POLLIN};
		struct signalfd_siginfo info;
		int r = cancel_poll(NULL, &pollfd, 1, next_tick);
		if (r < 0)
			return fault_errno(fault, r, "cannot wait for signals");
		if (r == 0) {
			tick(daemon);
			next_tick = clock_deadline(TICK_USEC);
			continue;
		}
		if (read(daemon->signal_fd, &info, sizeof(info)) != sizeof(info))
			continue;
		if (info.ssi_signo != SIGHUP) {
			log_info("STOPPING", "signal=%u from=%u", info.ssi_signo, info.ssi_pid);
			return 0;
		}
		reload_log_level(daemon);
	}
}

/* Close: nothing new comes in. Stop: what runs ends where it is. Free. */
static void stop(struct daemon *daemon)
{
	notify_stopping();
	if (daemon->url_file)
		unlink(daemon->url_file);
	if (daemon->server)
		server_close(daemon->server);
	if (daemon->api)
		api_close(daemon->api);

	supervisor_close(daemon->supervisor);
	if (daemon->guests)
		guests_close(daemon->guests);
	server_stop(daemon->server);

	/* Threads of tasks may be on their way out of the supervisor until the api is gone. */
	api_free(daemon->api);
	supervisor_stop(daemon->supervisor);
	tunnel_stop(daemon->tunnel);
	guests_free(daemon->guests);
	if (daemon->agent)
		agent_db_close(daemon->agent);
	if (daemon->pool)
		pool_db_close(daemon->pool);
	inventory_clear(&daemon->inventory);
	free(daemon->fingerprint);
	free(daemon->key);
	free(daemon->certificate);
	free(daemon->url_file);
	free(daemon->url);
	cleanup_close(&daemon->listen_fd);
	cleanup_close(&daemon->run_lock);
	cleanup_close(&daemon->state_lock);
	cleanup_close(&daemon->signal_fd);
}

int daemon_run(const struct config *config, const char *config_path, struct fault *fault)
{
	struct daemon daemon = {
		.config = config,
		.config_path = config_path,
		.signal_fd = -1,
		.state_lock = -1,
		.run_lock = -1,
		.listen_fd = -1,
	};
	int r = start_ground(&daemon, fault);

	if (r >= 0)
		r = start_state(&daemon, fault);
	if (r >= 0)
		r = start_tunnel(&daemon, fault);
	if (r >= 0)
		r = start_guests(&daemon, fault);
	if (r >= 0)
		r = start_services(&daemon, fault);
	if (r >= 0)
		r = announce(&daemon, fault);
	if (r >= 0)
		r = serve(&daemon, fault);
	stop(&daemon);
	if (r >= 0)
		log_info("STOPPED", "url=%s", config->listen);
	return r < 0 ? r : 0;
}
