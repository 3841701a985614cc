/* SPDX-License-Identifier: Apache-2.0 */
/* How the sender reads a disk of its plan: a raw image as the file it is, any other through a
 * program that knows its format. */
#ifndef FERRY_AGENT_MIGRATE_IMAGE_SOURCE_H
#define FERRY_AGENT_MIGRATE_IMAGE_SOURCE_H

#include "agent/migrate/migration.h"

struct image_source;

/* disk: of the plan. guest: the VM's, that runs here; NULL: it is halted. What is started for it is
 * in the journal before. Blocks up to 20 s, and sees the migration's cancel. -EOPNOTSUPP: this host
 * lacks the program, or the guest runs its disk in a way that cannot be read. */
int image_source_open(struct migration *migration, const struct value *disk, struct guest *guest,
	struct image_source **ret_source, struct fault *fault);
/* For endpoint_open; the source's own, as are its strings. */
const struct endpoint_spec *image_source_spec(const struct image_source *source);
/* After every endpoint of it was closed: ends what was started. Blocks. NULL is fine; returns NULL.
 */
struct image_source *image_source_close(struct image_source *source);

/* Once, at the daemon's start, before any is opened: removes what those of an earlier daemon left.
 */
int image_source_recover(const struct supervisor_params *params, struct fault *fault);

DEFINE_CLEANUP(struct image_source *, image_source_close)
#define CLEANUP_IMAGE_SOURCE CLEANUP(cleanup_image_source_close)

#endif
