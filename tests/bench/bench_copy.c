/* SPDX-License-Identifier: Apache-2.0 */
/* One measured copy of disk images, all at once, into fresh exports of one real tgtd: by the
 * copier, qemu-img, or a sender that does nothing else (bound.h). "-tls": through a data port, both
 * ends of which are threads of this process, and counted with it. Prints one line of JSON; who
 * calls it compares the contents. See copy.py. */
#include "agent/copy/copier.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/run.h"
#include "schema/agent_db.h"
#include "target/disk.h"
#include "target/export.h"
#include "target/tgt.h"
#include "tests/bench/bound.h"
#include "tests/lib/lun_door.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define TGTD      "/usr/sbin/tgtd"
#define QEMU_IMG  "/usr/bin/qemu-img"
#define IQN       "iqn.2026-01.bench.ferry:disk"
#define INITIATOR "iqn.2026-01.bench.ferry:sender"
#define SECRET    "0123456789abcdef"
#define MIGRATION "00000000-0000-4000-8000-000000000001"

#define MAX_DISKS 32

struct bench;

struct bench_disk {
	struct bench *bench;
	const char *source, *dest;
	char *iqn, *serial, *user;
	unsigned number;
	uint64_t size_bytes;
	struct copy_progress progress;
	pthread_t thread;
	struct fault fault;
	int result;
};

struct bench {
	const char *engine, *state_dir;
	int (*run)(struct bench_disk *disk, struct fault *fault);
	struct bench_disk disks[MAX_DISKS];
	unsigned n_disks;
	uint64_t n_sessions, request_bytes, in_flight_bytes, n_threads;
	bool target_fresh;
	uint16_t port;
	struct lun_door *door; /* NULL: without TLS */
	struct agent_db *db;
	double seconds, cpu_seconds, target_cpu_seconds, machine_cpu_seconds;
	long rss_kib, target_rss_kib;
};

/* RUSAGE_SELF, or RUSAGE_CHILDREN: those that have ended. */
static double cpu_seconds(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* --- The engines ------------------------------------------------------------------------------ */

static int log_everything(struct bench *bench, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = value_new_struct();
	struct migration_row row = {.uuid = (char *)MIGRATION,
		.role = ROLE_SENDER,
		.state = STATE_COPYING,
		.document = document,
		.created = clock_wall_sec()};
	int r = migration_insert(bench->db, &row, fault);

	for (unsigned i = 0; r == 0 && i < bench->n_disks; i++) {
		struct extent all = {0, bench->disks[i].size_bytes};
		r = extent_log_add(bench->db, MIGRATION, i, &all, 1, fault);
	}
	return r;
}

static struct endpoint_spec target_spec(const struct bench_disk *disk)
{
	const struct bench *bench = disk->bench;
	const struct endpoint_spec spec = {.kind = ENDPOINT_ISCSI,
		.writable = true,
		.address = "127.0.0.1",
		.port = bench->port,
		.iqn = disk->iqn,
		.initiator = INITIATOR,
		.user = disk->user,
		.secret = SECRET,
		.serial = disk->serial,
		.size_bytes = disk->size_bytes};

	return bench->door ? lun_door_spec(bench->door, spec) : spec;
}

static int run_ferry(struct bench_disk *disk, struct fault *fault)
{
	const struct bench *bench = disk->bench;
	struct copy_params params = {
		.db = bench->db,
		.migration = MIGRATION,
		.disk = disk->number,
		.source = {.kind = ENDPOINT_FILE, .path = disk->source},
		.target = target_spec(disk),
		.target_fresh = bench->target_fresh,
		.n_sessions = (unsigned)bench->n_sessions,
		.request_bytes = bench->request_bytes,
		.in_flight_bytes = bench->in_flight_bytes,
		.progress = &disk->progress,
	};

	return copy_run(&params, fault);
}

/* A sender that only sends: the first piece of the source, again and again. */
static int run_bound(struct bench_disk *disk, struct fault *fault)
{
	const struct endpoint_spec target = target_spec(disk);
	int fd CLEANUP_CLOSE = open(disk->source, O_RDONLY | O_CLOEXEC);
	char *data CLEANUP_FREE = malloc(BOUND_BYTES);
	int r = fd < 0 || !data ? -errno : 0;

	if (r == 0)
		r = io_pread_full(fd, data, (size_t)MIN(disk->size_bytes, BOUND_BYTES), 0);
	if (r < 0)
		return fault_errno(fault, r, "cannot read %s", disk->source);
	return bound_run(&target, data, fault);
}

static int run_qemu_img(struct bench_disk *disk, struct fault *fault)
{
	char *target CLEANUP_FREE = xasprintf("driver=iscsi,transport=tcp,portal=127.0.0.1:%u,"
					      "target=%s,lun=1,user=%s"
					      ",password-secret=s0,initiator-name=" INITIATOR,
		(unsigned)disk->bench->port, disk->iqn, disk->user);
	const char *const fresh[] = {QEMU_IMG, "convert", "-n", "-W", "-m", "16", "-f", "raw",
		"--object", "secret,id=s0,data=" SECRET, "--target-image-opts", "--target-is-zero",
		disk->source, target, NULL};
	const char *const used[] = {QEMU_IMG, "convert", "-n", "-W", "-m", "16", "-f", "raw",
		"--object", "secret,id=s0,data=" SECRET, "--target-image-opts", disk->source,
		target, NULL};
	struct run_params params = {
		.argv = disk->bench->target_fresh ? fresh : used, .log_id = "QEMU_IMG"};
	struct child *child CLEANUP_CHILD = NULL;
	int r = run_start(&params, &child, fault);

	if (r < 0)
		return r;
	r = run_wait(child, clock_deadline(600 * USEC_PER_SEC));
	if (r < 0 || run_status(child) != 0)
		return fault_text(fault, -EIO, "qemu-img failed: see its messages above");
	return 0;
}

static const struct engine {
	const char *name;
	int (*run)(struct bench_disk *disk, struct fault *fault);
} engines[] = {{"ferry", run_ferry}, {"ferry-tls", run_ferry}, {"qemu-img", run_qemu_img},
	{"bound", run_bound}, {"bound-tls", run_bound}};

static bool is_in_tls(const struct bench *bench)
{
	const char *dash = strrchr(bench->engine, '-');

	return dash && strcmp(dash, "-tls") == 0;
}

/* --- Around them ------------------------------------------------------------------------------ */

/* CPU time of tgtd so far: utime and stime, fields 14 and 15 of proc(5)'s stat. */
static double process_cpu_seconds(pid_t pid)
{
	char *path CLEANUP_FREE = xasprintf("/proc/%d/stat", (int)pid);
	struct buf stat CLEANUP_BUF = BUF_INIT;
	unsigned long user = 0, system = 0;

	if (io_read_file(path, 4096, &stat) < 0)
		return 0;
	const char *after_name = strrchr(stat.data, ')');
	if (!after_name ||
		sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
			&user, &system) != 2)
		return 0;
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* What all processes of the machine have used, user and kernel: the first fields of proc(5)'s stat,
 * without idle and iowait. */
static double machine_cpu_seconds(void)
{
	FILE *stat CLEANUP_FCLOSE = fopen("/proc/stat", "re");
	unsigned long user = 0, nice = 0, system = 0, irq = 0, softirq = 0;

	if (!stat || fscanf(stat, "cpu %lu %lu %lu %*u %*u %lu %lu", &user, &nice, &system, &irq,
			     &softirq) != 5)
		return 0;
	return (double)(user + nice + system + irq + softirq) / (double)sysconf(_SC_CLK_TCK);
}

/* The most memory that tgtd has had, in KiB: VmHWM of proc(5)'s status. */
static long process_peak_rss_kib(pid_t pid)
{
	char *path CLEANUP_FREE = xasprintf("/proc/%d/status", (int)pid);
	struct buf status CLEANUP_BUF = BUF_INIT;

	if (io_read_file(path, 65536, &status) < 0)
		return 0;
	const char *line = strstr(status.data, "VmHWM:");
	return line ? strtol(line + strlen("VmHWM:"), NULL, 10) : 0;
}

static void *disk_thread(void *arg)
{
	struct bench_disk *disk = arg;

	disk->result = disk->bench->run(disk, &disk->fault);
	return NULL;
}

static int run_disks(struct bench *bench, struct fault *fault)
{
	unsigned n_started = 0;
	int r = 0;

	while (r == 0 && n_started < bench->n_disks) {
		struct bench_disk *disk = &bench->disks[n_started];
		r = pthread_create(&disk->thread, NULL, disk_thread, disk);
		n_started += r == 0;
	}
	if (r > 0)
		fault_errno(fault, -r, "cannot start a thread");
	for (unsigned i = 0; i < n_started; i++) {
		struct bench_disk *disk = &bench->disks[i];
		pthread_join(disk->thread, NULL);
		if (r == 0 && disk->result < 0)
			fault_move(fault, &disk->fault);
		r = r ? r : disk->result;
		fault_clear(&disk->fault);
	}
	return r > 0 ? -r : r;
}

/* Children count too: qemu-img is one. tgtd is none that has ended. */
static double used_cpu_seconds(void)
{
	return cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN);
}

static int measure(struct bench *bench, struct fault *fault)
{
	struct rusage self, children;
	double machine_before = machine_cpu_seconds();
	double cpu_before = used_cpu_seconds();
	uint64_t before = clock_now_usec();
	int r = run_disks(bench, fault);

	bench->seconds = (double)(clock_now_usec() - before) / 1e6;
	bench->cpu_seconds = used_cpu_seconds() - cpu_before;
	bench->machine_cpu_seconds = machine_cpu_seconds() - machine_before;
	getrusage(RUSAGE_SELF, &self);
	getrusage(RUSAGE_CHILDREN, &children);
	bench->rss_kib = bench->run == run_qemu_img ? children.ru_maxrss : self.ru_maxrss;
	return r;
}

static int run_engine(struct bench *bench, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/agent.db", bench->state_dir);
	struct agent_db *db CLEANUP_AGENT_DB = NULL;
	struct lun_door door;
	int r = agent_db_open(path, &db, fault);

	bench->db = db;
	if (r == 0)
		r = log_everything(bench, fault);
	if (r < 0)
		return r;
	if (is_in_tls(bench)) {
		lun_door_start(&door);
		lun_door_lead_to(&door, bench->port);
		bench->door = &door;
	}
	r = measure(bench, fault);
	if (bench->door)
		lun_door_stop(&door);
	return r;
}

static int add_exports(struct bench *bench, struct tgt *tgt, struct fault *fault)
{
	struct export_identity identity;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < bench->n_disks; i++) {
		const struct bench_disk *disk = &bench->disks[i];
		const struct export_params params = {.iqn = disk->iqn,
			.path = disk->dest,
			.initiator = INITIATOR,
			.user = disk->user,
			.secret = SECRET,
			.serial = disk->serial,
			.size_bytes = disk->size_bytes};
		r = export_add(tgt, (int)i + 1, &params, &identity, fault);
	}
	return r;
}

static int with_exports(struct bench *bench, struct fault *fault)
{
	const char *dest = bench->disks[0].dest;
	char *dir CLEANUP_FREE = xstrndup(dest, (size_t)(strrchr(dest, '/') - dest));
	char *run_dir CLEANUP_FREE = xasprintf("%s/tgt", bench->state_dir);
	const char *const dirs[] = {dir, NULL};
	struct tgt_params params = {.program = TGTD,
		.run_dir = run_dir,
		.address = "127.0.0.1",
		.image_dirs = dirs,
		.n_threads = (unsigned)bench->n_threads};
	struct tgt *tgt CLEANUP_TGT = NULL;
	int r = tgt_start(&params, &tgt, fault);

	if (r == 0)
		r = add_exports(bench, tgt, fault);
	if (r < 0)
		return r;
	bench->port = tgt_port(tgt);
	double before = process_cpu_seconds(tgt_pid(tgt));
	r = run_engine(bench, fault);
	bench->target_cpu_seconds = process_cpu_seconds(tgt_pid(tgt)) - before;
	bench->target_rss_kib = process_peak_rss_kib(tgt_pid(tgt));
	for (unsigned i = 0; r == 0 && i < bench->n_disks; i++)
		r = export_withdraw(tgt, (int)i + 1, bench->disks[i].user, fault);
	return r;
}

static void print_result(const struct bench *bench)
{
	double others = bench->machine_cpu_seconds - bench->cpu_seconds - bench->target_cpu_seconds;
	struct buf out CLEANUP_BUF = BUF_INIT;
	struct value *result CLEANUP_VALUE = value_new_struct();
	uint64_t sent = 0;

	for (unsigned i = 0; i < bench->n_disks; i++)
		sent += bench->disks[i].progress.sent;
	value_set_string(result, "engine", bench->engine);
	value_set(result, "seconds", value_new_double(bench->seconds));
	value_set(result, "cpu_seconds", value_new_double(bench->cpu_seconds));
	value_set(result, "target_cpu_seconds", value_new_double(bench->target_cpu_seconds));
	value_set(result, "others_cpu_seconds", value_new_double(MAX(others, 0.0)));
	value_set_int(result, "rss_kib", bench->rss_kib);
	value_set_int(result, "target_rss_kib", bench->target_rss_kib);
	if (bench->run == run_ferry)
		value_set_int(result, "sent_bytes", (int64_t)sent);
	json_encode(result, &out);
	puts(out.data);
}

static int inspect(struct bench *bench, struct fault *fault)
{
	struct disk_info source, dest;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < bench->n_disks; i++) {
		struct bench_disk *disk = &bench->disks[i];
		disk->bench = bench;
		disk->number = i;
		disk->iqn = xasprintf("%s-%u", IQN, i);
		disk->serial = xasprintf("bench-0-%u", i);
		disk->user = xasprintf("bench%u", i);
		r = disk_inspect(disk->source, &source, fault);
		if (r == 0)
			r = disk_inspect(disk->dest, &dest, fault);
		if (r == 0 && source.size_bytes != dest.size_bytes)
			r = fault_text(fault, -EINVAL, "%s is not as large as %s", disk->dest,
				disk->source);
		disk->size_bytes = source.size_bytes;
	}
	return r;
}

static void remove_state(const struct bench *bench)
{
	static const char *const names[] = {"agent.db", "agent.db-wal", "agent.db-shm"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char *path CLEANUP_FREE = xasprintf("%s/%s", bench->state_dir, names[i]);
		unlink(path);
	}
	rmdir(bench->state_dir);
}

static int usage(void)
{
	fprintf(stderr, "usage: bench_copy [--sessions N] [--request SIZE] [--in-flight SIZE] "
			"[--threads N] [--used] ferry|ferry-tls|qemu-img|bound|bound-tls "
			"{SOURCE /ABSOLUTE/TARGET}...\n"
			"The targets are as large as their sources, and all in one folder. --used: "
			"they may hold anything, else they are known to read as zeros.\n");
	return -EINVAL;
}

static int parse_disks(int argc, char **argv, struct bench *bench)
{
	for (size_t i = 0; argc > 0 && i < ARRAY_SIZE(engines); i++)
		if (strcmp(engines[i].name, argv[0]) == 0)
			bench->run = engines[i].run;
	if (!bench->run || argc < 3 || argc % 2 == 0 || argc / 2 > MAX_DISKS)
		return usage();
	bench->engine = argv[0];
	bench->n_disks = (unsigned)argc / 2;
	for (unsigned i = 0; i < bench->n_disks; i++) {
		bench->disks[i].source = argv[1 + 2 * i];
		bench->disks[i].dest = argv[2 + 2 * i];
		if (argv[2 + 2 * i][0] != '/')
			return usage();
	}
	return 0;
}

static int parse_options(int argc, char **argv, struct bench *bench)
{
	static const struct option options[] = {{"sessions", required_argument, NULL, 's'},
		{"request", required_argument, NULL, 'r'},
		{"in-flight", required_argument, NULL, 'f'},
		{"threads", required_argument, NULL, 't'}, {"used", no_argument, NULL, 'u'}, {0}};
	int option, r = 0;

	while (r == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'u') {
			bench->target_fresh = false;
			continue;
		}
		uint64_t *value = option == 's'   ? &bench->n_sessions
				  : option == 'r' ? &bench->request_bytes
				  : option == 'f' ? &bench->in_flight_bytes
						  : &bench->n_threads;
		r = option == '?' ? -EINVAL : parse_size(optarg, value);
	}
	return r < 0 ? usage() : parse_disks(argc - optind, argv + optind, bench);
}

static void clear(struct bench *bench)
{
	for (unsigned i = 0; i < bench->n_disks; i++) {
		free(bench->disks[i].iqn);
		free(bench->disks[i].serial);
		free(bench->disks[i].user);
	}
}

int main(int argc, char **argv)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct bench bench = {.n_threads = 4, .target_fresh = true};
	char state_dir[] = "/tmp/ferry-bench-XXXXXX";

	log_set_level(LOG_LEVEL_WARN);
	if (parse_options(argc, argv, &bench) < 0)
		return 2;
	bench.state_dir = mkdtemp(state_dir);
	if (!bench.state_dir) {
		perror("mkdtemp");
		return 1;
	}
	int r = inspect(&bench, &fault);
	if (r == 0)
		r = with_exports(&bench, &fault);
	remove_state(&bench);
	if (r == 0)
		print_result(&bench);
	clear(&bench);
	if (r == 0)
		return 0;
	char *text CLEANUP_FREE = fault_describe(&fault);
	fprintf(stderr, "bench_copy: %s\n", text);
	return 1;
}
