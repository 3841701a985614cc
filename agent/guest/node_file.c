/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/node_file.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#define FDSET_FOLDER "/dev/fdset/"

/* --- What QEMU has ------------------------------------------------------------------------------
 */

/* 0 and *ret_id when the file came as a descriptor. */
static int fdset_of(const char *filename, int64_t *ret_id)
{
	size_t n = strlen(FDSET_FOLDER);

	return strncmp(filename, FDSET_FOLDER, n) == 0 ? parse_int64(filename + n, ret_id)
						       : -ENOENT;
}

const char *node_file_path(const struct value *fdsets, const char *filename)
{
	int64_t id;

	if (fdset_of(filename, &id) < 0)
		return filename;
	for (size_t i = 0; fdsets->type == VALUE_ARRAY && i < fdsets->array.n_items; i++) {
		const struct value *fdset = fdsets->array.items[i];
		const struct value *fds = value_find(fdset, "fds");
		if (value_find_int(fdset, "fdset-id", -1) == id && fds &&
			fds->type == VALUE_ARRAY && fds->array.n_items > 0)
			return value_find_string(fds->array.items[0], "opaque", filename);
	}
	return filename;
}

static int ask(struct guest *guest, struct value **ret_nodes, struct value **ret_fdsets,
	struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	int r = guest_command(guest, "query-fdsets", NULL, NULL, ret_fdsets, fault);

	value_set_bool(arguments, "flat", true);
	return r < 0 ? r
		     : guest_command(
			       guest, "query-named-block-nodes", arguments, NULL, ret_nodes, fault);
}

static const struct value *find_node(const struct value *nodes, const char *name)
{
	for (size_t i = 0; nodes->type == VALUE_ARRAY && i < nodes->array.n_items; i++)
		if (strcmp(value_find_string(nodes->array.items[i], "node-name", ""), name) == 0)
			return nodes->array.items[i];
	return NULL;
}

/* QEMU's name of the file in use; NULL: no such node. */
static const char *filename_in_use(const struct value *nodes, const char *node)
{
	const struct value *root = find_node(nodes, node);

	return root ? value_find_string(root, "file", "") : NULL;
}

int node_file_in_use(struct guest *guest, const char *node, char **ret_path, struct fault *fault)
{
	struct value *nodes CLEANUP_VALUE = NULL;
	struct value *fdsets CLEANUP_VALUE = NULL;
	int r = ask(guest, &nodes, &fdsets, fault);

	if (r < 0)
		return r;
	const char *filename = filename_in_use(nodes, node);
	if (!filename)
		return fault_text(fault, -ENOENT, "the running guest has no disk %s", node);
	*ret_path = xstrdup(node_file_path(fdsets, filename));
	return 0;
}

/* --- Exchange -----------------------------------------------------------------------------------
 */

static int remove_fdset(struct guest *guest, int64_t id, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();

	value_set_int(arguments, "fdset-id", id);
	return guest_command(guest, "remove-fd", arguments, NULL, NULL, fault);
}

static int open_image(const struct guest_node *node, const char *path, struct fault *fault)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (node->direct ? O_DIRECT : 0));

	if (fd >= 0)
		return fd;
	int error = -errno;
	if (error == -EINVAL && node->direct)
		return fault_text(fault, -EOPNOTSUPP,
			"the guest uses its disk past the page cache (O_DIRECT), which the file "
			"system of %s cannot do: move the disk while the VM is halted",
			path);
	return fault_errno(fault, error, "cannot open %s", path);
}

static int pass_file(
	struct guest *guest, int fd, const char *path, int64_t *ret_id, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *answer CLEANUP_VALUE = NULL;

	value_set_string(arguments, "opaque", path);
	int r = guest_command_fd(guest, "add-fd", arguments, fd, &answer, fault);
	if (r == 0)
		*ret_id = value_find_int(answer, "fdset-id", -1);
	return r;
}

static struct value *cache_of(const struct guest_node *node)
{
	struct value *cache = value_new_struct();

	value_set_bool(cache, "direct", node->direct);
	return cache;
}

/* As guest_spec.c makes it. */
static int add_node(struct guest *guest, const struct guest_node *node, int64_t fdset,
	const char *name, struct fault *fault)
{
	struct value *file CLEANUP_VALUE = value_new_struct();

	value_set_string(file, "driver", "file");
	value_set_string(file, "node-name", name);
	value_set(file, "filename", value_new_format(FDSET_FOLDER "%" PRId64, fdset));
	value_set_string(file, "discard", "unmap");
	value_set(file, "cache", cache_of(node));
	return guest_command(guest, "blockdev-add", file, NULL, NULL, fault);
}

/* One that was given before; NULL: none. The caller frees *ret_file. */
static int find_given(struct guest *guest, const struct guest_node *node, const char *path,
	char **ret_file, struct fault *fault)
{
	struct value *nodes CLEANUP_VALUE = NULL;
	struct value *fdsets CLEANUP_VALUE = NULL;
	char *prefix CLEANUP_FREE = xasprintf("%s" GUEST_NODE_FILE, node->name);
	int r = ask(guest, &nodes, &fdsets, fault);

	for (size_t i = 0; r == 0 && !*ret_file && i < nodes->array.n_items; i++) {
		const struct value *file = nodes->array.items[i];
		const char *name = value_find_string(file, "node-name", "");
		const char *filename = value_find_string(file, "file", "");
		if (strncmp(name, prefix, strlen(prefix)) == 0 &&
			strcmp(node_file_path(fdsets, filename), path) == 0)
			*ret_file = xstrdup(name);
	}
	return r;
}

static int give_file(struct guest *guest, const struct guest_node *node, const char *path,
	char **ret_file, struct fault *fault)
{
	int fd CLEANUP_CLOSE = open_image(node, path, fault);
	int64_t fdset = -1;

	if (fd < 0)
		return fd;
	int r = pass_file(guest, fd, path, &fdset, fault);
	if (r < 0)
		return r;
	char *name CLEANUP_FREE = xasprintf("%s-file-%" PRId64, node->name, fdset);
	r = add_node(guest, node, fdset, name, fault);
	if (r < 0) {
		remove_fdset(guest, fdset, NULL);
		return r;
	}
	*ret_file = TAKE_PTR(name);
	return 0;
}

int node_file_add(struct guest *guest, const struct guest_node *node, const char *path,
	char **ret_file, struct fault *fault)
{
	*ret_file = NULL;
	int r = find_given(guest, node, path, ret_file, fault);

	return r < 0 || *ret_file ? r : give_file(guest, node, path, ret_file, fault);
}

/* What is not said anew falls back to its default. */
int node_file_use(
	struct guest *guest, const struct guest_node *node, const char *file, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *options = value_new_array();
	struct value *format = value_new_struct();

	value_set_string(format, "driver", "raw");
	value_set_string(format, "node-name", node->name);
	value_set_string(format, "file", file);
	value_set_bool(format, "read-only", false);
	value_set_string(format, "discard", "unmap");
	value_set(format, "cache", cache_of(node));
	value_append(options, format);
	value_set(arguments, "options", options);
	return guest_command(guest, "blockdev-reopen", arguments, NULL, NULL, fault);
}

static int drop(struct guest *guest, const struct value *file, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	int64_t fdset;

	value_set_string(arguments, "node-name", value_find_string(file, "node-name", ""));
	int r = guest_command(guest, "blockdev-del", arguments, NULL, NULL, fault);
	if (r == 0 && fdset_of(value_find_string(file, "file", ""), &fdset) == 0)
		r = remove_fdset(guest, fdset, fault);
	return r;
}

int node_file_drop_others(struct guest *guest, const char *node, struct fault *fault)
{
	struct value *nodes CLEANUP_VALUE = NULL;
	struct value *fdsets CLEANUP_VALUE = NULL;
	char *prefix CLEANUP_FREE = xasprintf("%s" GUEST_NODE_FILE, node);
	int r = ask(guest, &nodes, &fdsets, fault);

	if (r < 0)
		return r;
	const char *used = filename_in_use(nodes, node);
	for (size_t i = 0; r == 0 && used && i < nodes->array.n_items; i++) {
		const struct value *file = nodes->array.items[i];
		if (strncmp(value_find_string(file, "node-name", ""), prefix, strlen(prefix)) ==
				0 &&
			strcmp(value_find_string(file, "file", ""), used) != 0)
			r = drop(guest, file, fault);
	}
	return r;
}
