/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guest/qmp_reader.h"

#include "base/alloc.h"
#include "base/json.h"

#include <errno.h>
#include <string.h>

static const struct json_limits limits = {.max_depth = 32, .max_values = 200000};

void qmp_reader_clear(struct qmp_reader *reader)
{
	buf_free(&reader->bytes);
	*reader = (struct qmp_reader){0};
}

void qmp_message_clear(struct qmp_message *message)
{
	free(message->id);
	free(message->name);
	free(message->text);
	value_free(message->body);
	*message = (struct qmp_message)QMP_MESSAGE_INIT;
}

static int reader_break(struct qmp_reader *reader, int error)
{
	buf_free(&reader->bytes);
	reader->scanned = 0;
	reader->broken = true;
	return error;
}

int qmp_reader_feed(struct qmp_reader *reader, const void *data, size_t length, struct fault *fault)
{
	if (reader->broken)
		return fault_text(fault, -EBADMSG, "QMP: the connection is broken");
	if (length)
		buf_append(&reader->bytes, data, length);
	/* Whole lines are taken out by qmp_reader_next, so what is scanned is one line's begin. */
	if (reader->scanned > QMP_MAX_LINE) {
		fault_text(fault, -EMSGSIZE, "QMP: a line of more than %zu bytes", QMP_MAX_LINE);
		return reader_break(reader, -EMSGSIZE);
	}
	return 0;
}

/* Length of the first line without its end; -EAGAIN while it is not whole. */
static ssize_t find_line(struct qmp_reader *reader)
{
	const struct buf *bytes = &reader->bytes;
	const char *end = bytes->length > reader->scanned
				  ? memchr(bytes->data + reader->scanned, '\n',
					    bytes->length - reader->scanned)
				  : NULL;

	if (end)
		return end - bytes->data;
	reader->scanned = bytes->length;
	return -EAGAIN;
}

/* Everything after the first n bytes moves to the front. */
static void drop_front(struct qmp_reader *reader, size_t n)
{
	struct buf *bytes = &reader->bytes;

	memmove(bytes->data, bytes->data + n, bytes->length - n);
	bytes->length -= n;
	bytes->data[bytes->length] = '\0';
	reader->scanned = 0;
}

static bool is_blank(const char *line, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

/* Takes a member out of its struct, so that a large reply is not copied. */
static struct value *take_member(struct value *record, const char *name)
{
	for (size_t i = 0; i < record->record.n_members; i++) {
		struct value_member *member = &record->record.members[i];
		if (strcmp(member->name, name) != 0)
			continue;
		struct value *value = member->value;
		member->value = value_new_nil();
		return value;
	}
	return NULL;
}

static void sort_out(struct value *object, struct qmp_message *message)
{
	const struct value *error = value_find(object, "error");
	const char *event = value_find_string(object, "event", NULL);

	message->id = xstrdup(value_find_string(object, "id", ""));
	message->kind = QMP_OTHER;
	if (value_find(object, "QMP")) {
		message->kind = QMP_GREETING;
		message->body = take_member(object, "QMP");
	} else if (event) {
		message->kind = QMP_EVENT;
		message->name = xstrdup(event);
		message->body = take_member(object, "data");
		if (!message->body || message->body->type != VALUE_STRUCT) {
			value_free(message->body);
			message->body = value_new_struct();
		}
	} else if (error) {
		message->kind = QMP_ERROR;
		message->name = xstrdup(value_find_string(error, "class", ""));
		message->text = xstrdup(value_find_string(error, "desc", "(no description)"));
	} else if (value_find(object, "return")) {
		message->kind = QMP_RETURN;
		message->body = take_member(object, "return");
	}
}

static int read_line(
	const char *line, size_t length, struct qmp_message *ret_message, struct fault *fault)
{
	struct fault why CLEANUP_FAULT = FAULT_INIT;
	struct value *object CLEANUP_VALUE = NULL;

	if (json_decode(line, length, &limits, &object, &why) < 0) {
		char *text CLEANUP_FREE = fault_describe(&why);
		return fault_text(fault, -EBADMSG, "QMP: a line is not JSON: %s", text);
	}
	if (object->type != VALUE_STRUCT)
		return fault_text(fault, -EBADMSG, "QMP: a line is no object but of type %s",
			value_type_name(object->type));
	sort_out(object, ret_message);
	return 0;
}

int qmp_reader_next(struct qmp_reader *reader, struct qmp_message *ret_message, struct fault *fault)
{
	if (reader->broken)
		return fault_text(fault, -EBADMSG, "QMP: the connection is broken");
	for (;;) {
		ssize_t length = find_line(reader);
		if (length < 0)
			return 0;
		if ((size_t)length > QMP_MAX_LINE) {
			fault_text(fault, -EBADMSG, "QMP: a line of more than %zu bytes",
				QMP_MAX_LINE);
			return reader_break(reader, -EBADMSG);
		}
		const char *line = reader->bytes.data;
		int r = is_blank(line, (size_t)length)
				? 0
				: read_line(line, (size_t)length, ret_message, fault);
		if (r < 0)
			return reader_break(reader, r);
		bool found = !is_blank(line, (size_t)length);
		drop_front(reader, (size_t)length + 1);
		if (found)
			return 1;
	}
}
