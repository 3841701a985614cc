/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/guest_node.h"

#include "agent/guest/node_file.h"
#include "base/alloc.h"

#include <errno.h>
#include <string.h>

void guest_node_clear(struct guest_node *node)
{
	free(node->name);
	node->name = NULL;
}

static const struct value *find_node(const struct value *nodes, const char *key, const char *wanted)
{
	for (size_t i = 0; nodes->type == VALUE_ARRAY && i < nodes->array.n_items; i++) {
		const struct value *node = nodes->array.items[i];
		if (strcmp(value_find_string(node, key, ""), wanted) == 0)
			return node;
	}
	return NULL;
}

/* "d0-file-1" -> "d0"; NULL for what is no disk of the guest (a CD drive's image is "cd0-file"). */
static char *root_name(const char *file_node)
{
	const char *end = strstr(file_node, GUEST_NODE_FILE);

	return *file_node == 'd' && end ? xstrndup(file_node, (size_t)(end - file_node)) : NULL;
}

/* Of a disk that changes its file there are two. */
static bool is_in_use(const struct value *nodes, const char *root, const struct value *file)
{
	const struct value *node = find_node(nodes, "node-name", root);

	return node && strcmp(value_find_string(node, "file", ""),
			       value_find_string(file, "file", "")) == 0;
}

static const struct value *find_file_node(
	const struct value *nodes, const struct value *fdsets, const char *path)
{
	for (size_t i = 0; nodes->type == VALUE_ARRAY && i < nodes->array.n_items; i++) {
		const struct value *node = nodes->array.items[i];
		char *root CLEANUP_FREE = root_name(value_find_string(node, "node-name", ""));
		const char *filename = value_find_string(node, "file", "");
		if (root && strcmp(node_file_path(fdsets, filename), path) == 0 &&
			strcmp(value_find_string(node, "drv", ""), "file") == 0 &&
			is_in_use(nodes, root, node))
			return node;
	}
	return NULL;
}

/* The device of node "d<i>" is "vd<i>". */
static int ask_iothread(
	struct guest *guest, const char *node, bool *ret_in_iothread, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *answer CLEANUP_VALUE = NULL;

	value_set(arguments, "path", value_new_format("/machine/peripheral/v%s", node));
	value_set_string(arguments, "property", "iothread");
	int r = guest_command(guest, "qom-get", arguments, NULL, &answer, fault);
	if (r == 0)
		*ret_in_iothread = *value_string(answer, "unknown") != '\0';
	return r;
}

int guest_node_find(
	struct guest *guest, const char *path, struct guest_node *ret_node, struct fault *fault)
{
	struct value *arguments CLEANUP_VALUE = value_new_struct();
	struct value *nodes CLEANUP_VALUE = NULL;
	struct value *fdsets CLEANUP_VALUE = NULL;
	struct guest_node node CLEANUP_GUEST_NODE = {0};

	value_set_bool(arguments, "flat", true);
	int r = guest_command(guest, "query-named-block-nodes", arguments, NULL, &nodes, fault);
	if (r == 0)
		r = guest_command(guest, "query-fdsets", NULL, NULL, &fdsets, fault);
	if (r < 0)
		return r;
	const struct value *file = find_file_node(nodes, fdsets, path);
	if (file)
		node.name = root_name(value_find_string(file, "node-name", ""));
	const struct value *root = file ? find_node(nodes, "node-name", node.name) : NULL;
	if (!root)
		return fault_text(fault, -ENOENT, "the running guest has no disk on %s", path);
	node.is_raw = strcmp(value_find_string(root, "drv", ""), "raw") == 0;
	node.direct = value_find_bool(value_find(file, "cache"), "direct", false);
	r = ask_iothread(guest, node.name, &node.in_iothread, fault);
	if (r < 0)
		return r;
	*ret_node = node;
	node.name = NULL;
	return 0;
}
