/* SPDX-License-Identifier: Apache-2.0 */
/* hold_export DIR SIZE_MIB: exports a fresh image in DIR by a tgtd of its own, prints
 * "PORTAL IQN INITIATOR USER SECRET IMAGE" on one line, and withdraws it at the end of its
 * standard input. */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "base/uuid.h"
#include "target/disk.h"
#include "target/export.h"
#include "target/tgt.h"

#include <errno.h>
#include <stdio.h>

#define TID 1

static int hold(struct tgt *tgt, const char *image, uint64_t size_bytes, struct fault *fault)
{
	char *secret CLEANUP_FREE = secret_new(24);
	struct export_identity identity;
	struct export_params params = {
		.iqn = "iqn.2026-08.org.ferry:held",
		.path = image,
		.initiator = "iqn.2026-08.org.ferry:holder",
		.user = "holder",
		.secret = secret,
		.serial = "held-g1",
		.size_bytes = size_bytes,
	};
	int r = export_add(tgt, TID, &params, &identity, fault);

	if (r < 0)
		return r;
	printf("127.0.0.1:%u %s %s %s %s %s\n", tgt_port(tgt), params.iqn, params.initiator,
		params.user, secret, image);
	fflush(stdout);
	while (getchar() != EOF)
		;
	r = export_withdraw(tgt, TID, params.user, fault);
	if (r == 0 && tgt_is_lost(tgt))
		r = fault_text(fault, -EIO, "tgtd was lost while it was in use");
	return r < 0 ? r : export_settle(image, &identity, fault);
}

static int run(const char *dir, uint64_t size_bytes, struct fault *fault)
{
	char *run_dir CLEANUP_FREE = xasprintf("%s/run", dir);
	char *image CLEANUP_FREE = xasprintf("%s/held.img", dir);
	const char *images[] = {image, NULL};
	struct tgt *tgt CLEANUP_TGT = NULL;
	int r = disk_create(image, size_bytes, fault);

	if (r < 0)
		return r;
	r = tgt_start(
		&(struct tgt_params){
			.program = "/usr/sbin/tgtd",
			.run_dir = run_dir,
			.address = "127.0.0.1",
			.image_dirs = images,
			.n_threads = 4,
		},
		&tgt, fault);
	return r < 0 ? r : hold(tgt, image, size_bytes, fault);
}

int main(int argc, char **argv)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;
	uint64_t mib;

	if (argc != 3 || parse_range(argv[2], 1, 1 << 20, &mib) < 0) {
		fprintf(stderr, "usage: hold_export DIR SIZE_MIB\n");
		return 2;
	}
	if (run(argv[1], mib << 20, &fault) == 0)
		return 0;
	char *text CLEANUP_FREE = fault_describe(&fault);
	fprintf(stderr, "hold_export: %s\n", text);
	return 1;
}
