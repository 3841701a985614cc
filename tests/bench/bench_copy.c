/* SPDX-License-Identifier: Apache-2.0 */
/* One measured copy of a disk image into a fresh export of a real tgtd, by the copier, qemu-img or
 * a sender that does nothing else (bound.h), and a comparison of the contents afterwards. "-tls":
 * through a data port, both ends of which are threads of this process, and counted with it. Prints
 * one line of JSON. See copy.py. */
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
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define TGTD      "/usr/sbin/tgtd"
#define QEMU_IMG  "/usr/bin/qemu-img"
#define IQN       "iqn.2026-01.bench.ferry:disk"
#define INITIATOR "iqn.2026-01.bench.ferry:sender"
#define USER      "bench"
#define SECRET    "0123456789abcdef"
#define SERIAL    "bench-0-1"
#define MIGRATION "00000000-0000-4000-8000-000000000001"
#define MIB       ((size_t)1 << 20)

struct bench {
	const char *engine, *source, *dest, *state_dir;
	uint64_t size_bytes;
	uint64_t n_sessions, request_bytes, in_flight_bytes, n_threads;
	bool allocated; /* the export's file is written to before: its blocks are there */
	uint16_t port;
	struct lun_door *door; /* NULL: without TLS */
	double seconds, cpu_seconds, target_cpu_seconds, machine_cpu_seconds;
	struct copy_progress progress;
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

static int log_everything(struct agent_db *db, uint64_t size_bytes, struct fault *fault)
{
	struct value *document CLEANUP_VALUE = value_new_struct();
	struct extent all = {0, size_bytes};
	struct migration_row row = {.uuid = (char *)MIGRATION,
		.role = ROLE_SENDER,
		.state = STATE_COPYING,
		.document = document,
		.created = clock_wall_sec()};
	int r = migration_insert(db, &row, fault);

	return r < 0 ? r : extent_log_add(db, MIGRATION, 0, &all, 1, fault);
}

static struct endpoint_spec target_spec(const struct bench *bench)
{
	const struct endpoint_spec spec = {.kind = ENDPOINT_ISCSI,
		.writable = true,
		.address = "127.0.0.1",
		.port = bench->port,
		.iqn = IQN,
		.initiator = INITIATOR,
		.user = USER,
		.secret = SECRET,
		.serial = SERIAL,
		.size_bytes = bench->size_bytes};

	return bench->door ? lun_door_spec(bench->door, spec) : spec;
}

static int run_ferry(struct bench *bench, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s/agent.db", bench->state_dir);
	struct agent_db *db CLEANUP_AGENT_DB = NULL;
	int r = agent_db_open(path, &db, fault);

	if (r == 0)
		r = log_everything(db, bench->size_bytes, fault);
	if (r < 0)
		return r;
	struct copy_params params = {
		.db = db,
		.migration = MIGRATION,
		.source = {.kind = ENDPOINT_FILE, .path = bench->source},
		.target = target_spec(bench),
		.target_fresh = !bench->allocated,
		.n_sessions = (unsigned)bench->n_sessions,
		.request_bytes = bench->request_bytes,
		.in_flight_bytes = bench->in_flight_bytes,
		.progress = &bench->progress,
	};
	double cpu_before = cpu_seconds(RUSAGE_SELF);
	uint64_t before = clock_now_usec();
	r = copy_run(&params, fault);
	bench->seconds = (double)(clock_now_usec() - before) / 1e6;
	bench->cpu_seconds = cpu_seconds(RUSAGE_SELF) - cpu_before;
	return r;
}

/* A sender that only sends: the first piece of the source, again and again. */
static int run_bound(struct bench *bench, struct fault *fault)
{
	const struct endpoint_spec target = target_spec(bench);
	int fd CLEANUP_CLOSE = open(bench->source, O_RDONLY | O_CLOEXEC);
	char *data CLEANUP_FREE = malloc(BOUND_BYTES);
	int r = fd < 0 || !data ? -errno : 0;

	if (r == 0)
		r = io_pread_full(fd, data, (size_t)MIN(bench->size_bytes, BOUND_BYTES), 0);
	if (r < 0)
		return fault_errno(fault, r, "cannot read %s", bench->source);
	double cpu_before = cpu_seconds(RUSAGE_SELF);
	uint64_t before = clock_now_usec();
	r = bound_run(&target, data, fault);
	bench->seconds = (double)(clock_now_usec() - before) / 1e6;
	bench->cpu_seconds = cpu_seconds(RUSAGE_SELF) - cpu_before;
	return r;
}

static int run_qemu_img(struct bench *bench, struct fault *fault)
{
	char *target CLEANUP_FREE = xasprintf("driver=iscsi,transport=tcp,portal=127.0.0.1:%u,"
					      "target=" IQN ",lun=1,user=" USER
					      ",password-secret=s0,initiator-name=" INITIATOR,
		(unsigned)bench->port);
	const char *const argv[] = {QEMU_IMG, "convert", "-n", "-W", "-m", "16", "-f", "raw",
		"--object", "secret,id=s0,data=" SECRET, "--target-image-opts", bench->source,
		target, NULL};
	struct run_params params = {.argv = argv, .log_id = "QEMU_IMG"};
	struct child *child CLEANUP_CHILD = NULL;
	double cpu_before = cpu_seconds(RUSAGE_CHILDREN);
	uint64_t before = clock_now_usec();
	int r = run_start(&params, &child, fault);

	if (r < 0)
		return r;
	r = run_wait(child, clock_deadline(600 * USEC_PER_SEC));
	bench->seconds = (double)(clock_now_usec() - before) / 1e6;
	if (r < 0 || run_status(child) != 0)
		return fault_text(fault, -EIO, "qemu-img failed: see its messages above");
	bench->cpu_seconds = cpu_seconds(RUSAGE_CHILDREN) - cpu_before;
	return 0;
}

static const struct engine {
	const char *name;
	int (*run)(struct bench *bench, struct fault *fault);
} engines[] = {{"ferry", run_ferry}, {"ferry-tls", run_ferry}, {"qemu-img", run_qemu_img},
	{"bound", run_bound}, {"bound-tls", run_bound}};

static bool is_in_tls(const struct bench *bench)
{
	const char *dash = strrchr(bench->engine, '-');

	return dash && strcmp(dash, "-tls") == 0;
}

static const struct engine *find_engine(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(engines); i++)
		if (strcmp(engines[i].name, name) == 0)
			return &engines[i];
	return NULL;
}

/* --- Around them ------------------------------------------------------------------------------ */

static int compare(const struct bench *bench, struct fault *fault)
{
	bool repeats = find_engine(bench->engine)->run == run_bound;
	size_t piece = repeats ? BOUND_BYTES : MIB;
	int a CLEANUP_CLOSE = open(bench->source, O_RDONLY | O_CLOEXEC);
	int b CLEANUP_CLOSE = open(bench->dest, O_RDONLY | O_CLOEXEC);
	char *data_a CLEANUP_FREE = malloc(MIB);
	char *data_b CLEANUP_FREE = malloc(MIB);

	if (a < 0 || b < 0 || !data_a || !data_b)
		return fault_errno(fault, -errno, "cannot compare");
	for (uint64_t at = 0; at < bench->size_bytes; at += piece) {
		size_t n = (size_t)MIN(bench->size_bytes - at, piece);
		int r = io_pread_full(a, data_a, n, repeats ? 0 : at);
		if (r == 0)
			r = io_pread_full(b, data_b, n, at);
		if (r < 0)
			return fault_errno(fault, r, "cannot compare");
		if (memcmp(data_a, data_b, n) != 0)
			return fault_text(
				fault, -EILSEQ, "content differs at %llu", (unsigned long long)at);
	}
	return 0;
}

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

static int run_engine(struct bench *bench, struct fault *fault)
{
	struct lun_door door;
	double machine_before;

	if (is_in_tls(bench)) {
		lun_door_start(&door);
		lun_door_lead_to(&door, bench->port);
		bench->door = &door;
	}
	machine_before = machine_cpu_seconds();
	int r = find_engine(bench->engine)->run(bench, fault);
	bench->machine_cpu_seconds = machine_cpu_seconds() - machine_before;
	if (bench->door)
		lun_door_stop(&door);
	return r;
}

static int with_export(struct bench *bench, struct fault *fault)
{
	const char *slash = strrchr(bench->dest, '/');
	char *dir CLEANUP_FREE = xstrndup(bench->dest, (size_t)(slash - bench->dest));
	char *run_dir CLEANUP_FREE = xasprintf("%s/tgt", bench->state_dir);
	const char *const dirs[] = {dir, NULL};
	struct tgt_params tgt_params = {.program = TGTD,
		.run_dir = run_dir,
		.address = "127.0.0.1",
		.image_dirs = dirs,
		.n_threads = (unsigned)bench->n_threads};
	struct export_params export_params = {.iqn = IQN,
		.path = bench->dest,
		.initiator = INITIATOR,
		.user = USER,
		.secret = SECRET,
		.serial = SERIAL,
		.size_bytes = bench->size_bytes};
	struct export_identity identity;
	struct tgt *tgt CLEANUP_TGT = NULL;
	int r = tgt_start(&tgt_params, &tgt, fault);

	if (r == 0)
		r = export_add(tgt, 1, &export_params, &identity, fault);
	if (r < 0)
		return r;
	bench->port = tgt_port(tgt);
	r = run_engine(bench, fault);
	bench->target_cpu_seconds = process_cpu_seconds(tgt_pid(tgt));
	return r < 0 ? r : export_withdraw(tgt, 1, USER, fault);
}

static void print_result(const struct bench *bench, long rss_kib)
{
	struct disk_info source = {0}, dest = {0};
	struct buf out CLEANUP_BUF = BUF_INIT;
	struct value *result CLEANUP_VALUE = value_new_struct();

	disk_inspect(bench->source, &source, NULL);
	disk_inspect(bench->dest, &dest, NULL);
	value_set_string(result, "engine", bench->engine);
	value_set(result, "seconds", value_new_double(bench->seconds));
	value_set(result, "mib_per_sec",
		value_new_double((double)bench->size_bytes / (double)MIB / bench->seconds));
	value_set_int(result, "size_bytes", (int64_t)bench->size_bytes);
	value_set_int(result, "source_allocated_bytes", (int64_t)source.allocated_bytes);
	value_set_int(result, "dest_allocated_bytes", (int64_t)dest.allocated_bytes);
	value_set_bool(result, "content_equal", true);
	value_set(result, "cpu_seconds", value_new_double(bench->cpu_seconds));
	value_set(result, "target_cpu_seconds", value_new_double(bench->target_cpu_seconds));
	value_set(result, "others_cpu_seconds",
		value_new_double(MAX(
			bench->machine_cpu_seconds - bench->cpu_seconds - bench->target_cpu_seconds,
			0.0)));
	if (find_engine(bench->engine)->run == run_ferry) {
		value_set_int(result, "sent_bytes", (int64_t)bench->progress.sent);
		value_set_int(result, "peak_rss_kib", rss_kib);
	}
	json_encode(result, &out);
	puts(out.data);
}

/* Bytes other than zero: the comparison afterwards must not be true by itself. */
static int allocate(const struct bench *bench, struct fault *fault)
{
	int fd CLEANUP_CLOSE = open(bench->dest, O_WRONLY | O_CLOEXEC);
	char *data CLEANUP_FREE = malloc(MIB);

	if (fd < 0 || !data)
		return fault_errno(fault, -errno, "cannot write %s", bench->dest);
	memset(data, 0x5a, MIB);
	for (uint64_t at = 0; at < bench->size_bytes; at += MIB) {
		int r = io_pwrite_full(fd, data, (size_t)MIN(bench->size_bytes - at, MIB), at);
		if (r < 0)
			return fault_errno(fault, r, "cannot write %s", bench->dest);
	}
	return 0;
}

static int run_bench(struct bench *bench, struct fault *fault)
{
	struct disk_info info;
	struct rusage usage;
	int r = disk_inspect(bench->source, &info, fault);

	if (r < 0)
		return r;
	bench->size_bytes = info.size_bytes;
	r = disk_create(bench->dest, bench->size_bytes, fault);
	if (r == 0 && bench->allocated)
		r = allocate(bench, fault);
	if (r == 0)
		r = with_export(bench, fault);
	getrusage(RUSAGE_SELF, &usage);
	if (r == 0)
		r = compare(bench, fault);
	if (r == 0)
		print_result(bench, usage.ru_maxrss);
	disk_remove(bench->dest, NULL);
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

static int parse_options(int argc, char **argv, struct bench *bench)
{
	static const struct option options[] = {{"sessions", required_argument, NULL, 's'},
		{"request", required_argument, NULL, 'r'},
		{"in-flight", required_argument, NULL, 'f'},
		{"threads", required_argument, NULL, 't'}, {"allocated", no_argument, NULL, 'a'},
		{0}};
	int option, r = 0;

	while (r == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'a') {
			bench->allocated = true;
			continue;
		}
		uint64_t *value = option == 's'   ? &bench->n_sessions
				  : option == 'r' ? &bench->request_bytes
				  : option == 'f' ? &bench->in_flight_bytes
						  : &bench->n_threads;
		r = option == '?' ? -EINVAL : parse_size(optarg, value);
	}
	if (r < 0 || argc - optind != 3 || argv[optind + 2][0] != '/' ||
		!find_engine(argv[optind])) {
		fprintf(stderr, "usage: bench_copy [--sessions N] [--request SIZE] "
				"[--in-flight SIZE] [--threads N] [--allocated] "
				"ferry|ferry-tls|qemu-img|bound|bound-tls SOURCE "
				"/ABSOLUTE/NEW-FILE\n");
		return -EINVAL;
	}
	bench->engine = argv[optind];
	bench->source = argv[optind + 1];
	bench->dest = argv[optind + 2];
	return 0;
}

int main(int argc, char **argv)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	struct bench bench = {.n_threads = 4};
	char state_dir[] = "/tmp/ferry-bench-XXXXXX";

	log_set_level(LOG_LEVEL_WARN);
	if (parse_options(argc, argv, &bench) < 0)
		return 2;
	bench.state_dir = mkdtemp(state_dir);
	if (!bench.state_dir) {
		perror("mkdtemp");
		return 1;
	}
	int r = run_bench(&bench, &fault);
	remove_state(&bench);
	if (r == 0)
		return 0;
	char *text CLEANUP_FREE = fault_describe(&fault);
	fprintf(stderr, "bench_copy: %s\n", text);
	return 1;
}
