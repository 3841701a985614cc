/* SPDX-License-Identifier: Apache-2.0 */
/* writer [tick=MS] DISK...
 *
 * DISK: device:pattern:rate[:KiB per write[:MiB of region[:MiB to fill first]]], with the patterns
 * seq, random, hot, mixed (with discards and zeroes) and ext4 (a file system, which is there). Rate
 * is writes a second, 0: as many as it can.
 *
 * On the console: "+MS" every tick, the guest's monotonic clock; "{...}" once a second and as
 * answer to each line that it reads: COMMAND ID [ARGUMENT...], where COMMAND is stop, go, verify,
 * sync, rate (argument: writes a second) or poweroff. Turns the machine off at its power button. */
#include "tests/guest/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_JOBS    8
#define MAX_INPUTS  8
#define STATUS_USEC 1000000

static struct job jobs[MAX_JOBS];
static size_t n_jobs;
static uint64_t tick_usec = 10000;
static _Atomic uint64_t max_tick_usec; /* the longest time between two ticks, by its own clock */
static atomic_bool ending;

uint64_t now_usec(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t job_random(struct job *job)
{
	job->random ^= job->random << 13;
	job->random ^= job->random >> 7;
	job->random ^= job->random << 17;
	return job->random >> 8;
}

void say(const char *format, ...)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	char line[4096];
	va_list args;

	va_start(args, format);
	int length = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	if (length > (int)sizeof(line) - 2)
		length = (int)sizeof(line) - 2;
	line[length++] = '\n';
	pthread_mutex_lock(&lock);
	for (int done = 0; done < length;) {
		ssize_t n = write(STDOUT_FILENO, line + done, (size_t)(length - done));

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			break;
		done += n > 0 ? (int)n : 0;
	}
	pthread_mutex_unlock(&lock);
}

/* Of the first ones the text, of all the number. */
#define TOLD 20

void job_error(struct job *job, const char *what, uint64_t block)
{
	int error = errno;

	if (job->errors++ < TOLD)
		say("{\"event\": \"error\", \"device\": \"%s\", \"what\": \"%s\", \"block\": %llu, "
		    "\"error\": \"%s\"}",
			job->device, what, (unsigned long long)block, strerror(error));
}

void job_wrong(struct job *job, const struct record *found, uint64_t block, uint64_t wanted)
{
	enum record_verdict verdict = record_judge(found, job->disk, block);

	if (job->wrong++ < TOLD)
		say("{\"event\": \"wrong\", \"device\": \"%s\", \"block\": %llu, \"wanted\": %llu, "
		    "\"found\": \"%s\", \"sequence\": %llu}",
			job->device, (unsigned long long)block, (unsigned long long)wanted,
			record_verdict_name(verdict),
			(unsigned long long)(verdict == RECORD_GOOD ? found->sequence : 0));
}

void job_took(struct job *job, uint64_t since_usec)
{
	uint64_t usec = now_usec() - since_usec;

	if (usec > job->max_usec)
		job->max_usec = usec;
	if (usec > job->recent_usec)
		job->recent_usec = usec;
}

/* --- Jobs ---------------------------------------------------------------------------------------
 */

static struct timespec as_timespec(uint64_t usec)
{
	return (struct timespec){
		.tv_sec = (time_t)(usec / 1000000), .tv_nsec = (long)(usec % 1000000) * 1000};
}

/* Until the next step is due, or there is a command. Late steps are caught up with, for a second.
 */
static enum command await_turn(struct job *job)
{
	uint64_t now = now_usec();

	if (job->next_usec + 1000000 < now)
		job->next_usec = now;
	struct timespec due = as_timespec(job->next_usec);
	pthread_mutex_lock(&job->lock);
	while (job->command == COMMAND_NONE) {
		if (job->stopped)
			pthread_cond_wait(&job->changed, &job->lock);
		else if (job->rate == 0 || job->next_usec <= now ||
			 pthread_cond_timedwait(&job->changed, &job->lock, &due) == ETIMEDOUT)
			break;
	}
	enum command command = job->command;
	pthread_mutex_unlock(&job->lock);
	return command;
}

static void obey(struct job *job, enum command command)
{
	if (command == COMMAND_VERIFY)
		job->kind->verify(job);
	if (command != COMMAND_GO && command != COMMAND_VERIFY)
		job->kind->settle(job);
	if (command == COMMAND_STOP || command == COMMAND_END)
		job->stopped = true;
	if (command == COMMAND_GO)
		job->stopped = false;
	if (command == COMMAND_END)
		job->kind->end(job);
	pthread_mutex_lock(&job->lock);
	job->command = COMMAND_NONE;
	pthread_cond_broadcast(&job->changed);
	pthread_mutex_unlock(&job->lock);
}

static void *run_job(void *arg)
{
	struct job *job = arg;

	job->next_usec = now_usec();
	for (;;) {
		enum command command = await_turn(job);

		if (command != COMMAND_NONE) {
			obey(job, command);
			if (command == COMMAND_END)
				return NULL;
			continue;
		}
		job->kind->step(job);
		if (job->rate)
			job->next_usec += 1000000 / job->rate;
	}
}

static void command_all(enum command command)
{
	for (size_t i = 0; i < n_jobs; i++) {
		pthread_mutex_lock(&jobs[i].lock);
		jobs[i].command = command;
		pthread_cond_broadcast(&jobs[i].changed);
		pthread_mutex_unlock(&jobs[i].lock);
	}
	for (size_t i = 0; i < n_jobs; i++) {
		pthread_mutex_lock(&jobs[i].lock);
		while (jobs[i].command != COMMAND_NONE)
			pthread_cond_wait(&jobs[i].changed, &jobs[i].lock);
		pthread_mutex_unlock(&jobs[i].lock);
	}
}

/* --- Console ------------------------------------------------------------------------------------
 */

static void report(const char *event, const char *id)
{
	char text[4000];
	int n = 0;

	for (size_t i = 0; i < n_jobs && n < (int)sizeof(text); i++) {
		struct job *job = &jobs[i];

		n += snprintf(text + n, sizeof(text) - (size_t)n,
			"%s{\"device\": \"%s\", \"pattern\": \"%s\", \"disk\": \"%016llx\", "
			"\"sequence\": %llu, \"writes\": %llu, \"discards\": %llu, "
			"\"zeroes\": %llu, \"reads\": %llu, \"scanned\": %llu, \"errors\": %llu, "
			"\"wrong\": %llu, \"max_us\": %llu, \"recent_us\": %llu, "
			"\"hash\": \"%016llx\"}",
			i ? ", " : "", job->device, job->kind->name, (unsigned long long)job->disk,
			(unsigned long long)job->sequence, (unsigned long long)job->writes,
			(unsigned long long)job->discards, (unsigned long long)job->zeroes,
			(unsigned long long)job->reads, (unsigned long long)job->scanned,
			(unsigned long long)job->errors, (unsigned long long)job->wrong,
			(unsigned long long)job->max_usec,
			(unsigned long long)atomic_exchange(&job->recent_usec, 0),
			(unsigned long long)job->hash);
	}
	say("{\"event\": \"%s\", \"id\": \"%s\", \"ms\": %llu, \"max_tick_ms\": %llu, "
	    "\"disks\": [%s]}",
		event, id, (unsigned long long)(now_usec() / 1000),
		(unsigned long long)(max_tick_usec / 1000), text);
}

static void *run_ticks(void *arg)
{
	uint64_t due = now_usec(), status = due, last = due;

	while (!ending) {
		struct timespec until = as_timespec(due);

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		uint64_t now = now_usec();
		if (now - last > max_tick_usec)
			max_tick_usec = now - last;
		last = now;
		say("+%llu", (unsigned long long)(now / 1000));
		if (now >= status) {
			report("status", "");
			status = now + STATUS_USEC;
		}
		due = due + tick_usec > now ? due + tick_usec : now + tick_usec;
	}
	return arg;
}

static void power_off(const char *id)
{
	command_all(COMMAND_END);
	ending = true;
	report("poweroff", id);
	tcdrain(STDOUT_FILENO);
	sync();
	reboot(RB_POWER_OFF);
}

static void obey_line(char *line)
{
	static const struct {
		const char *name;
		enum command command;
	} commands[] = {{"stop", COMMAND_STOP}, {"go", COMMAND_GO}, {"verify", COMMAND_VERIFY},
		{"sync", COMMAND_SYNC}};
	char *rest = NULL;
	const char *name = strtok_r(line, " \r\n", &rest);
	const char *id = name ? strtok_r(NULL, " \r\n", &rest) : NULL;
	const char *argument = id ? strtok_r(NULL, " \r\n", &rest) : NULL;

	if (!id)
		return;
	/* Who asked hangs up first, and then reads the log. */
	usleep(20000);
	if (strcmp(name, "poweroff") == 0)
		power_off(id);
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(name, commands[i].name) == 0) {
			command_all(commands[i].command);
			report(name, id);
			return;
		}
	}
	if (strcmp(name, "rate") != 0 || !argument)
		return;
	for (size_t i = 0; i < n_jobs; i++)
		jobs[i].rate = strtoull(argument, NULL, 10);
	command_all(COMMAND_GO);
	report(name, id);
}

/* Lines are short; what is left of a longer one is no command either. */
static void read_console(void)
{
	static char line[256];
	static size_t length;
	char byte;

	while (read(STDIN_FILENO, &byte, 1) == 1) {
		if (byte != '\n' && byte != '\r') {
			line[length] = byte;
			length = length + 1 < sizeof(line) - 1 ? length + 1 : 0;
			continue;
		}
		line[length] = '\0';
		length = 0;
		obey_line(line);
	}
}

static void serve(void)
{
	struct pollfd polled[1 + MAX_INPUTS] = {{.fd = STDIN_FILENO, .events = POLLIN}};
	nfds_t n = 1;

	for (int i = 0; i < MAX_INPUTS; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			polled[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
	for (;;) {
		if (poll(polled, n, -1) < 0)
			continue;
		if (polled[0].revents)
			read_console();
		for (nfds_t i = 1; i < n; i++)
			if (polled[i].revents)
				power_off("button");
	}
}

/* --- Start --------------------------------------------------------------------------------------
 */

static const struct job_kind *kind_of(const char *name)
{
	static const struct job_kind *const kinds[] = {
		&seq_kind, &random_kind, &hot_kind, &mixed_kind, &ext4_kind};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strcmp(kinds[i]->name, name) == 0)
			return kinds[i];
	return NULL;
}

static bool parse_job(const char *text)
{
	struct job *job = &jobs[n_jobs];
	char pattern[16] = "";
	unsigned long long rate = 0, kib = 4, region_mib = 0, fill_mib = 0;

	if (n_jobs == MAX_JOBS || sscanf(text, "%15[^:]:%15[^:]:%llu:%llu:%llu:%llu", job->device,
					  pattern, &rate, &kib, &region_mib, &fill_mib) < 3)
		return false;
	job->kind = kind_of(pattern);
	job->rate = rate;
	job->write_bytes = (size_t)kib << 10;
	job->region_bytes = (uint64_t)region_mib << 20;
	job->fill_bytes = (uint64_t)fill_mib << 20;
	n_jobs++;
	return job->kind && kib >= 4 && kib % 4 == 0 && job->write_bytes <= BUFFER_BYTES;
}

static bool start_job(struct job *job)
{
	pthread_condattr_t attributes;
	uint64_t seeds[2];

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&job->lock, NULL);
	pthread_cond_init(&job->changed, &attributes);
	if (getrandom(seeds, sizeof(seeds), GRND_INSECURE) != (ssize_t)sizeof(seeds))
		return false;
	job->disk = seeds[0] | 1;
	job->random = seeds[1] | 1;
	int r = job->kind->prepare(job);
	if (r < 0) {
		say("{\"event\": \"failed\", \"device\": \"%s\", \"error\": \"%s\"}", job->device,
			strerror(-r));
		return false;
	}
	return pthread_create(&job->thread, NULL, run_job, job) == 0;
}

static void raw_console(void)
{
	struct termios mode;

	if (tcgetattr(STDIN_FILENO, &mode) < 0)
		return;
	cfmakeraw(&mode);
	/* A read of what is there: output, on the same open file, must block all the same. */
	mode.c_cc[VMIN] = 0;
	mode.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &mode);
}

int main(int argc, char **argv)
{
	pthread_t ticker;

	raw_console();
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "tick=", 5) == 0) {
			tick_usec = strtoull(argv[i] + 5, NULL, 10) * 1000;
		} else if (!parse_job(argv[i])) {
			say("{\"event\": \"failed\", \"error\": \"bad argument %s\"}", argv[i]);
			return 2;
		}
	}
	for (size_t i = 0; i < n_jobs; i++)
		if (!start_job(&jobs[i]))
			return 1;
	report("ready", "");
	if (tick_usec == 0 || pthread_create(&ticker, NULL, run_ticks, NULL) != 0)
		return 1;
	serve();
}
