/* SPDX-License-Identifier: Apache-2.0 */
/* The run folder, and the processes that name it. No other agent has that folder: it is locked. */
#include "agent/guest/guest_spec.h"
#include "agent/migrate/doctor_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/parse.h"
#include "base/run.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define GUESTS_FOLDER "guests"
#define MAX_TEXT      ((size_t)1 << 20)
#define END_USEC      (5 * USEC_PER_SEC)

/* --- Folders ------------------------------------------------------------------------------------
 */

/* *ret_owner: whose the folder is by the journal ("": this host's guest); false: nobody's. The
 * caller frees it. */
static bool find_owner(struct doctor *doctor, const char *folder, char **ret_owner)
{
	static const char *const kinds[] = {"tgtd", "image-server", "qemu"};
	struct resource_row *rows = NULL;
	size_t n = 0;
	bool found = false;

	resource_list(doctor->params->storage->agent, NULL, NULL, &rows, &n, NULL);
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < ARRAY_SIZE(kinds) && !found; j++)
			if (strcmp(rows[i].kind, kinds[j]) == 0 &&
				strcmp(rows[i].name, folder) == 0) {
				*ret_owner = xstrdup(rows[i].owner);
				found = true;
			}
		resource_row_clear(&rows[i]);
	}
	free(rows);
	return found;
}

static bool is_one_of(const char *name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static void look_into_guest(struct doctor *doctor, const char *folder)
{
	static const char *const known[] = {GUEST_QMP, GUEST_QMP_SPARE, GUEST_CONSOLE, GUEST_LOG,
		GUEST_PIDFILE, GUEST_OUTPUT, GUEST_NBD, GUEST_MEMORY, GUEST_WATCHDOG,
		GUEST_WATCHDOG_LOG};
	DIR *dir = opendir(folder);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && !is_one_of(entry->d_name, known, ARRAY_SIZE(known)))
			doctor_add(doctor, "file", entry->d_name, folder, false,
				"no part of a guest makes such a file");
	if (dir)
		closedir(dir);
}

/* What the journal has under a dead migration is told with the journal. */
static void look_at_entry(
	struct doctor *doctor, const char *parent, const char *name, bool is_guest)
{
	char *path CLEANUP_FREE = xasprintf("%s/%s", parent, name);
	char *owner CLEANUP_FREE = NULL;

	if (!find_owner(doctor, path, &owner))
		doctor_add(doctor, "folder", name, parent, false,
			"the journal has nothing of that name");
	else if (is_guest)
		look_into_guest(doctor, path);
}

static void look_into(struct doctor *doctor, const char *folder, const char *const *known, size_t n)
{
	DIR *dir = opendir(folder);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			!is_one_of(entry->d_name, known, n))
			look_at_entry(doctor, folder, entry->d_name, n == 0);
	if (dir)
		closedir(dir);
}

void doctor_look_at_run_dir(struct doctor *doctor)
{
	static const char *const known[] = {"url", "lock", GUESTS_FOLDER};
	char *guests CLEANUP_FREE = xasprintf("%s/" GUESTS_FOLDER, doctor->params->run_dir);

	look_into(doctor, doctor->params->run_dir, known, ARRAY_SIZE(known));
	look_into(doctor, guests, NULL, 0);
}

/* --- Processes ----------------------------------------------------------------------------------
 */

struct process {
	pid_t pid;
	char *folder;        /* of the run folder, or of its folder "guests" */
	const char *program; /* of ours, by the file that runs, not by a name; NULL: another */
};

static bool is_program(const struct stat *running, const char *path)
{
	struct stat st;

	return path && stat(path, &st) == 0 && st.st_dev == running->st_dev &&
	       st.st_ino == running->st_ino;
}

/* A tgtd, qemu-nbd or watchdog of the configuration. Of QEMU see is_guest. */
static const char *find_program(const struct supervisor_params *params, pid_t pid)
{
	char path[64];
	struct stat running;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	if (stat(path, &running) < 0)
		return NULL;
	if (is_program(&running, params->tgtd))
		return "tgtd";
	if (is_program(&running, params->qemu_nbd))
		return "qemu-nbd";
	return is_program(&running, params->watchdog) ? "ferry-watchdog" : NULL;
}

/* The first folder of the run folder that the NUL-ended strings name; the caller frees it. */
static char *find_folder(const char *run_dir, const struct buf *text)
{
	size_t length = strlen(run_dir);
	const char *end = text->data + text->length;

	for (const char *at = text->data; at && at < end; at += strlen(at) + 1) {
		const char *found = strstr(at, run_dir);
		if (!found || found[length] != '/')
			continue;
		const char *name = found + length + 1;
		if (strncmp(name, GUESTS_FOLDER "/", strlen(GUESTS_FOLDER "/")) == 0)
			name += strlen(GUESTS_FOLDER "/");
		return xstrndup(found, (size_t)(name + strcspn(name, "/,;:") - found));
	}
	return NULL;
}

/* Whether it is this user's, and names the run folder. */
static bool read_process(struct doctor *doctor, pid_t pid, struct process *ret_process)
{
	static const char *const files[] = {"cmdline", "environ"};
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (pid == getpid() || stat(path, &st) < 0 || st.st_uid != geteuid())
		return false;
	*ret_process = (struct process){.pid = pid};
	for (size_t i = 0; i < ARRAY_SIZE(files) && !ret_process->folder; i++) {
		struct buf text CLEANUP_BUF = BUF_INIT;
		snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, files[i]);
		if (io_read_file(path, MAX_TEXT, &text) == 0 && text.length) {
			buf_append_char(&text, '\0');
			ret_process->folder = find_folder(doctor->params->run_dir, &text);
		}
	}
	if (!ret_process->folder)
		return false;
	ret_process->program = find_program(doctor->params, pid);
	return true;
}

struct search {
	pid_t pid;
	bool found;
};

static void compare_pid(void *arg, struct resident *resident)
{
	struct search *search = arg;

	search->found |= guest_pid(resident_guest(resident)) == search->pid;
}

/* A QEMU that this agent has; one of a dead migration is told, and ended, with its row. */
static bool is_guest(struct doctor *doctor, pid_t pid)
{
	struct search search = {.pid = pid};

	if (doctor->params->guests)
		guests_each(doctor->params->guests, compare_pid, &search);
	return search.found;
}

/* Why nobody accounts for it; NULL: somebody does. *ret_dead: whose it was, a dead migration's, if
 * that is proven; the caller frees it. */
static const char *judge(struct doctor *doctor, const struct process *process, char **ret_dead)
{
	const char *name = strrchr(process->folder, '/') + 1;
	char *owner CLEANUP_FREE = NULL;
	bool is_watchdog = process->program && strcmp(process->program, "ferry-watchdog") == 0;

	if (is_watchdog && doctor_is_leaving(doctor, name))
		return NULL;
	if (is_watchdog) {
		*ret_dead = xstrdup("");
		return "its guest does not move";
	}
	if (!find_owner(doctor, process->folder, &owner))
		return "the journal has nothing of the folder that it names";
	if (!*owner || doctor_is_living(doctor, owner) || is_guest(doctor, process->pid))
		return NULL;
	if (process->program)
		*ret_dead = TAKE_PTR(owner);
	return "the migration that it was started for is dead";
}

static void look_at_process(struct doctor *doctor, pid_t pid)
{
	struct process process;
	char *dead CLEANUP_FREE = NULL;
	char number[16];

	if (!read_process(doctor, pid, &process))
		return;
	const char *why = judge(doctor, &process, &dead);
	/* What ended meanwhile was somebody's. */
	if (why && kill(pid, 0) == 0) {
		snprintf(number, sizeof(number), "%d", (int)pid);
		struct value *finding = doctor_add(doctor, "process", number, process.folder, dead,
			"%s: %s", process.program ? process.program : "no program of Ferry's", why);
		value_set_string(finding, "owner", dead ? dead : "");
	}
	free(process.folder);
}

void doctor_look_at_processes(struct doctor *doctor)
{
	DIR *processes = opendir("/proc");
	const struct dirent *entry;
	uint64_t pid;

	while (processes && (entry = readdir(processes)))
		if (parse_range(entry->d_name, 1, INT32_MAX, &pid) == 0)
			look_at_process(doctor, (pid_t)pid);
	if (processes)
		closedir(processes);
}

/* It is held before it is looked at again: the number may be another process's by now. */
int doctor_fix_process(struct doctor *doctor, const struct value *finding, struct fault *fault)
{
	struct process process = {0};
	struct child *child = NULL;
	char *dead CLEANUP_FREE = NULL;
	uint64_t pid = 0;

	parse_range(value_find_string(finding, "what", ""), 1, INT32_MAX, &pid);
	if (pid == 0 || run_adopt((pid_t)pid, &child, NULL) < 0)
		return 0; /* it has ended */
	bool is_it = read_process(doctor, (pid_t)pid, &process) &&
		     strcmp(process.folder, value_find_string(finding, "where", "")) == 0 &&
		     judge(doctor, &process, &dead) && dead;
	int r = is_it ? 0
		      : fault_text(fault, -EBUSY,
				"process %d is not what it was when it was looked at", (int)pid);
	if (r == 0 && *dead)
		r = doctor_bury(doctor, dead, fault);
	if (r == 0) {
		run_kill(child, SIGKILL);
		r = run_wait(child, clock_deadline(END_USEC));
		if (r < 0)
			fault_errno(fault, r, "process %d does not end", (int)pid);
	}
	run_leave(child);
	free(process.folder);
	return r;
}
