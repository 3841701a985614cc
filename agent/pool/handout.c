/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/pool/handout.h"

#include "base/alloc.h"
#include "base/base64.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/uuid.h"
#include "schema/db_copier.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A member that reads slowly keeps its copy while others get newer ones. */
#define N_COPIES 4

/* A file without a name: nothing is left of it when the daemon ends. */
struct copy {
	char *id; /* NULL: none */
	int fd;
	int64_t size;
	uint64_t made_usec;
	uint64_t used_usec;
};

struct handout {
	char *path; /* of the database */
	uint64_t max_age_usec;
	char *run; /* tells ids of this run of the daemon from others */
	pthread_mutex_t lock;
	struct db_copier *copier;
	struct copy copies[N_COPIES];
};

struct handout *handout_new(const char *path, uint64_t max_age_usec)
{
	struct handout *handout = xcalloc(1, sizeof(*handout));

	handout->path = xstrdup(path);
	handout->max_age_usec = max_age_usec;
	handout->run = uuid_new();
	pthread_mutex_init(&handout->lock, NULL);
	return handout;
}

static void drop(struct copy *copy)
{
	if (!copy->id)
		return;
	close(copy->fd);
	free(copy->id);
	*copy = (struct copy){0};
}

struct handout *handout_free(struct handout *handout)
{
	if (!handout)
		return NULL;
	for (size_t i = 0; i < N_COPIES; i++)
		drop(&handout->copies[i]);
	db_copier_free(handout->copier);
	pthread_mutex_destroy(&handout->lock);
	free(handout->run);
	free(handout->path);
	free(handout);
	return NULL;
}

/* --- Under the lock ----------------------------------------------------------------------------
 */

static struct copy *find(struct handout *handout, const char *id)
{
	for (size_t i = 0; i < N_COPIES; i++)
		if (handout->copies[i].id && strcmp(handout->copies[i].id, id) == 0)
			return &handout->copies[i];
	return NULL;
}

/* NULL: none is that young. */
static struct copy *find_young(struct handout *handout)
{
	struct copy *newest = NULL;

	for (size_t i = 0; i < N_COPIES; i++) {
		struct copy *copy = &handout->copies[i];
		if (copy->id && (!newest || copy->made_usec > newest->made_usec))
			newest = copy;
	}
	return newest && clock_now_usec() - newest->made_usec <= handout->max_age_usec ? newest
										       : NULL;
}

/* One that is empty, or was not used for longest. */
static struct copy *take_place(struct handout *handout)
{
	struct copy *place = &handout->copies[0];

	for (size_t i = 1; i < N_COPIES; i++)
		if (handout->copies[i].used_usec < place->used_usec)
			place = &handout->copies[i];
	drop(place);
	return place;
}

/* What the file holds now; the caller frees it. */
static int name_present(struct handout *handout, char **ret_id, struct fault *fault)
{
	int64_t version = 0;
	int r = handout->copier ? 0 : db_copier_new(handout->path, &handout->copier, fault);

	if (r == 0)
		r = db_copier_version(handout->copier, &version, fault);
	if (r == 0)
		*ret_id = xasprintf("%s/%" PRId64, handout->run, version);
	return r;
}

static int make(
	struct handout *handout, const char *id, struct copy **ret_copy, struct fault *fault)
{
	char *path CLEANUP_FREE = xasprintf("%s.handout", handout->path);
	uint64_t now = clock_now_usec();
	struct stat st;
	int r = db_copier_write(handout->copier, path, fault);

	if (r < 0)
		return r;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int error = -errno;
		if (fd >= 0)
			close(fd);
		return fault_errno(fault, error, "cannot open %s", path);
	}
	*ret_copy = take_place(handout);
	**ret_copy = (struct copy){.id = xstrdup(id),
		.fd = fd,
		.size = st.st_size,
		.made_usec = now,
		.used_usec = now};
	return 0;
}

static int find_or_make(
	struct handout *handout, bool now, struct copy **ret_copy, struct fault *fault)
{
	char *id CLEANUP_FREE = NULL;
	int r;

	*ret_copy = now ? NULL : find_young(handout);
	if (*ret_copy)
		return 0;
	r = name_present(handout, &id, fault);
	if (r < 0)
		return r;
	*ret_copy = find(handout, id);
	if (!*ret_copy)
		return make(handout, id, ret_copy, fault);
	(*ret_copy)->made_usec = clock_now_usec(); /* it would be the same */
	return 0;
}

/* --- For members -------------------------------------------------------------------------------
 */

int handout_offer(struct handout *handout, const char *have, bool now, struct value **ret_offer,
	struct fault *fault)
{
	struct copy *copy = NULL;

	SCOPE_LOCK(&handout->lock);
	int r = find_or_make(handout, now, &copy, fault);
	if (r < 0)
		return r;
	copy->used_usec = clock_now_usec();
	*ret_offer = value_set_string(value_new_struct(), "id", copy->id);
	if (strcmp(copy->id, have) != 0)
		value_set_int(*ret_offer, "size", copy->size);
	return 0;
}

int handout_read(struct handout *handout, const char *id, int64_t offset, struct value **ret_piece,
	struct fault *fault)
{
	struct buf text CLEANUP_BUF = BUF_INIT;

	SCOPE_LOCK(&handout->lock);
	struct copy *copy = find(handout, id);
	if (!copy)
		return fault_set(fault, -ESTALE, "FERRY_COPY_GONE", id, NULL);
	if (offset < 0 || offset >= copy->size)
		return fault_text(
			fault, -EINVAL, "the copy %s ends before byte %" PRId64, id, offset);
	size_t length = (size_t)MIN((int64_t)HANDOUT_PIECE, copy->size - offset);
	char *bytes CLEANUP_FREE = xcalloc(length, 1);
	int r = io_pread_full(copy->fd, bytes, length, (uint64_t)offset);
	if (r < 0)
		return fault_errno(fault, r, "cannot read the copy %s", id);
	copy->used_usec = clock_now_usec();
	base64_encode(bytes, length, &text);
	*ret_piece = value_new_string(text.data);
	return 0;
}
