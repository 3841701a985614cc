/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/migrate/pauses.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define LATEST 5

struct past {
	int64_t finished;
	uint64_t usec;
};

static double part(const struct value *pause, const char *name)
{
	return strtod(value_find_string(pause, name, "0"), NULL);
}

/* Keeps the latest, sorted by when they ended; the oldest first. */
static void keep(struct past *latest, size_t *n, struct past past)
{
	size_t at = *n;

	if (*n == LATEST) {
		if (past.finished <= latest[0].finished)
			return;
		memmove(latest, latest + 1, (LATEST - 1) * sizeof(*latest));
		at--;
	} else {
		++*n;
	}
	for (; at > 0 && latest[at - 1].finished > past.finished; at--)
		latest[at] = latest[at - 1];
	latest[at] = past;
}

static int compare(const void *a, const void *b)
{
	const struct past *left = a, *right = b;

	return (left->usec > right->usec) - (left->usec < right->usec);
}

uint64_t pauses_usual_usec(struct pool_db *pool)
{
	struct value *records CLEANUP_VALUE = NULL;
	struct past latest[LATEST];
	size_t n = 0;

	if (object_get_all_records(pool, "migration", &records, NULL) < 0)
		return 0;
	for (size_t i = 0; i < records->record.n_members; i++) {
		const struct value *record = records->record.members[i].value;
		const struct value *pause = value_find(record, "pause");
		const struct value *finished = value_find(record, "finished");
		double fixed = part(pause, "total") - part(pause, "last_round");
		if (fixed > 0 && finished && finished->type == VALUE_DATETIME)
			keep(latest, &n,
				(struct past){.finished = finished->integer,
					.usec = (uint64_t)(fixed * (double)USEC_PER_MSEC)});
	}
	qsort(latest, n, sizeof(*latest), compare);
	return n ? latest[n / 2].usec : 0;
}
