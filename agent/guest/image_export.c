/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/image_export.h"

#include "agent/guest/guest_nbd.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/uuid.h"

#include <errno.h>
#include <string.h>

#define NAME_PREFIX "ferry-image."

struct image_export {
	struct guest *guest;
	struct guest_watch *watch; /* for BLOCK_EXPORT_DELETED */
	char *socket;
	char *name;
	bool is_there;
};

const char *image_export_socket(const struct image_export *image)
{
	return image->socket;
}

const char *image_export_name(const struct image_export *image)
{
	return image->name;
}

static int add(struct image_export *image, const char *node, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	value_set_string(arguments, "id", image->name);
	value_set_string(arguments, "type", "nbd");
	value_set_string(arguments, "node-name", node);
	value_set_string(arguments, "name", image->name);
	value_set_bool(arguments, "writable", false);
	return guest_command(image->guest, "block-export-add", arguments, NULL, NULL, fault);
}

int image_export_open(struct guest *guest, const char *job, const struct guest_node *node,
	struct image_export **ret_export, struct fault *fault)
{
	if (node->in_iothread)
		return fault_text(fault, -EOPNOTSUPP,
			"disk %s of the running guest is served by a thread of its own, and QEMU "
			"cannot export it then: shut the VM down and start it again",
			node->name);
	struct image_export *image CLEANUP_IMAGE_EXPORT = xcalloc(1, sizeof(*image));
	char *unique CLEANUP_FREE = uuid_new();
	image->guest = guest;
	image->watch = guest_watch_new(guest);
	/* Unique, so that a disk may be open twice: for the copy and for the passes behind it. */
	image->name = xasprintf(NAME_PREFIX "%s.%s.%.8s", job, node->name, unique);
	int r = guest_nbd_ensure(guest, &image->socket, fault);
	if (r < 0)
		return r;
	image->is_there = true; /* Whether a command that failed had an effect is not known. */
	r = add(image, node->name, fault);
	if (r == 0)
		*ret_export = TAKE_PTR(image);
	return r;
}

struct image_export *image_export_close(struct image_export *image)
{
	struct fault fault CLEANUP_FAULT = FAULT_INIT;

	if (!image)
		return NULL;
	if (image->is_there && guest_is_alive(image->guest) &&
		guest_nbd_end_export(image->guest, image->watch, image->name, &fault) < 0) {
		char *text CLEANUP_FREE = fault_describe(&fault);
		log_warn("guest.export_left", "export=%s error=\"%s\"", image->name, text);
	}
	guest_watch_free(image->watch);
	free(image->socket);
	free(image->name);
	free(image);
	return NULL;
}

int image_export_forget(struct guest *guest, const char *job, struct fault *fault)
{
	struct guest_watch *watch CLEANUP_GUEST_WATCH = guest_watch_new(guest);
	struct value *exports CLEANUP_VALUE = NULL;
	char *prefix CLEANUP_FREE = xasprintf(NAME_PREFIX "%s.", job);
	int r = guest_nbd_query_exports(guest, &exports, fault);

	for (size_t i = 0; r == 0 && i < exports->array.n_items; i++) {
		const char *id = value_find_string(exports->array.items[i], "id", "");
		if (strncmp(id, prefix, strlen(prefix)) == 0)
			r = guest_nbd_end_export(guest, watch, id, fault);
	}
	return r;
}
