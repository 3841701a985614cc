/* SPDX-License-Identifier: Apache-2.0 */
/* GET /export_raw_vdi and PUT /import_raw_vdi: the content of a disk that no guest has. */
#include "agent/api/transfer.h"

#include "agent/api/placement.h"
#include "agent/migrate/raw_disk.h"
#include "base/alloc.h"
#include "base/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* What other servers can and this one cannot is refused, not passed over. */
static int check_params(struct transfer *transfer, struct fault *fault)
{
	static const char *const unknown[] = {"base", "chunked", "sr_id", "sr_uuid"};
	const char *format = transfer_param(transfer, "format");

	if (format && strcmp(format, "raw") != 0)
		return transfer_bad_param("format", "allowed: raw", fault);
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		if (transfer_param(transfer, unknown[i]))
			return transfer_bad_param(unknown[i],
				"this server knows no such parameter of a raw disk", fault);
	return 0;
}

/* The VDI, if it is to be had here; else TRANSFER_ELSEWHERE. The caller frees it. */
static int find_vdi(struct transfer *transfer, char **ret_vdi, struct fault *fault)
{
	struct api *api = transfer->api;
	char *sr CLEANUP_FREE = NULL;
	char *vdi CLEANUP_FREE = NULL;
	int r = check_params(transfer, fault);

	if (r == 0)
		r = transfer_object(transfer, "vdi", "VDI", &vdi, fault);
	if (r == 0)
		r = object_get_string(api->pool, "VDI", vdi, "SR", &sr, fault);
	if (r < 0)
		return r;
	char *host CLEANUP_FREE = placement_of_sr(api->pool, sr, api->host_ref);
	if (host && strcmp(host, api->host_ref) != 0)
		return transfer_redirect(transfer, host, fault);
	*ret_vdi = TAKE_PTR(vdi);
	return 0;
}

static int open_disk(struct transfer *transfer, const char *vdi, bool writable,
	struct raw_disk **ret_disk, struct fault *fault)
{
	const struct raw_disk_request request = {
		.vdi = vdi,
		.task = transfer->task,
		.writable = writable,
		.cancel = transfer->api->closing,
	};

	return raw_disk_open(transfer->api->supervisor, &request, ret_disk, fault);
}

/* --- Import -------------------------------------------------------------------------------------
 */

static int receive(struct transfer *transfer, struct raw_disk *disk, struct fault *fault)
{
	ssize_t n;

	do {
		size_t max;
		char *space = raw_disk_space(disk, &max);
		n = transfer_read(transfer, space, max, fault);
		int r = n > 0 ? raw_disk_wrote(disk, (size_t)n, fault) : (int)n;
		if (r < 0)
			return r;
	} while (n > 0);
	return raw_disk_finish(disk, fault);
}

static int check_length(const struct transfer *transfer, const char *vdi,
	const struct raw_disk *disk, struct fault *fault)
{
	uint64_t length = http_stream_length(transfer->stream);
	char *text CLEANUP_FREE = xasprintf("%" PRIu64, length);

	if (length == HTTP_STREAM_LENGTH_UNKNOWN || length <= raw_disk_size(disk))
		return 0;
	return fault_set(fault, -EFBIG, "VDI_TOO_SMALL", vdi, text, NULL);
}

static int run_import(struct transfer *transfer, struct fault *fault)
{
	struct raw_disk *disk CLEANUP_RAW_DISK = NULL;
	char *vdi CLEANUP_FREE = NULL;
	int r = find_vdi(transfer, &vdi, fault);

	if (r != 0)
		return r;
	r = transfer_begin(transfer, http_stream_length(transfer->stream), fault);
	if (r == 0)
		r = open_disk(transfer, vdi, true, &disk, fault);
	if (r == 0)
		r = check_length(transfer, vdi, disk, fault);
	return r < 0 ? r : receive(transfer, disk, fault);
}

/* --- Export -------------------------------------------------------------------------------------
 */

struct range {
	bool is_part;
	uint64_t offset;
	uint64_t length;
};

static int parse_position(const char *from, size_t length, uint64_t *ret_position)
{
	char *text CLEANUP_FREE = xstrndup(from, length);

	return parse_uint64(text, ret_position);
}

/* RFC 9110, 14.2: one range of bytes. Whatever else stands there counts as not said; 1: there is
 * nothing in that range. */
static int parse_range_header(const char *header, uint64_t size, struct range *range)
{
	static const char unit[] = "bytes=";
	uint64_t first = 0;
	uint64_t last = size - 1;

	if (!header || strncmp(header, unit, strlen(unit)) != 0)
		return 0;
	header += strlen(unit);
	const char *dash = strchr(header, '-');
	if (!dash)
		return 0;
	if (dash == header) {
		if (parse_uint64(dash + 1, &last) < 0)
			return 0;
		first = size - MIN(last, size);
		last = size - 1;
	} else if (parse_position(header, (size_t)(dash - header), &first) < 0 ||
		   (dash[1] && (parse_uint64(dash + 1, &last) < 0 || last < first))) {
		return 0;
	}
	if (first >= size)
		return 1;
	*range = (struct range){true, first, MIN(last, size - 1) - first + 1};
	return 0;
}

static int read_range(
	struct transfer *transfer, uint64_t size, struct range *range, struct fault *fault)
{
	const char *header = http_stream_header(transfer->stream, "range");

	*range = (struct range){false, 0, size};
	/* There is nothing that a client could compare. */
	if (http_stream_header(transfer->stream, "if-range") ||
		parse_range_header(header, size, range) == 0)
		return 0;
	char *text CLEANUP_FREE = xasprintf("%s: the disk has %" PRIu64 " bytes", header, size);
	transfer->status = 416;
	value_set(transfer->headers, "Content-Range", value_new_format("bytes */%" PRIu64, size));
	return fault_set(fault, -ERANGE, "INVALID_VALUE", "Range", text, NULL);
}

static void begin_answer(
	struct transfer *transfer, const char *vdi, const struct range *range, uint64_t size)
{
	struct value *headers = transfer->headers;
	char *uuid CLEANUP_FREE = NULL;

	object_get_string(transfer->api->pool, "VDI", vdi, "uuid", &uuid, NULL);
	value_set(headers, "Content-Disposition",
		value_new_format("attachment; filename=\"%s.raw\"", uuid ? uuid : "disk"));
	value_set_string(headers, "Accept-Ranges", "bytes");
	if (range->is_part)
		value_set(headers, "Content-Range",
			value_new_format("bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, range->offset,
				range->offset + range->length - 1, size));
	transfer_answer(
		transfer, range->is_part ? 206 : 200, "application/octet-stream", range->length);
}

/* The disk is free again before the last bytes leave, so that whoever has them may use it. */
static int send_range(struct transfer *transfer, struct raw_disk *disk, const struct range *range,
	struct fault *fault)
{
	uint64_t done = 0;
	int r = 0;

	while (r == 0 && done < range->length) {
		size_t n = (size_t)MIN(range->length - done, RAW_DISK_BYTES);
		const char *data = NULL;
		r = raw_disk_read(disk, range->offset + done, n, &data, fault);
		done += n;
		if (r == 0 && done == range->length)
			(void)raw_disk_release(disk, NULL); /* else it is tried again later */
		if (r == 0)
			r = transfer_write(transfer, data, n, fault);
	}
	return r < 0 ? r : transfer_flush(transfer, fault);
}

/* The headers alone, of a disk that may be in use. */
static int run_head(struct transfer *transfer, const char *vdi, struct fault *fault)
{
	struct range range;
	int64_t size = 0;
	int r = object_get_int(transfer->api->pool, "VDI", vdi, "virtual_size", &size, fault);

	if (r == 0)
		r = read_range(transfer, (uint64_t)size, &range, fault);
	if (r == 0)
		begin_answer(transfer, vdi, &range, (uint64_t)size);
	return r;
}

static int run_export(struct transfer *transfer, struct fault *fault)
{
	struct raw_disk *disk CLEANUP_RAW_DISK = NULL;
	char *vdi CLEANUP_FREE = NULL;
	struct range range;
	int r = find_vdi(transfer, &vdi, fault);

	if (r != 0)
		return r;
	if (strcmp(http_stream_method(transfer->stream), "HEAD") == 0)
		return run_head(transfer, vdi, fault);
	r = transfer_begin(transfer, HTTP_STREAM_LENGTH_UNKNOWN, fault);
	if (r == 0)
		r = open_disk(transfer, vdi, false, &disk, fault);
	if (r < 0)
		return r;
	r = read_range(transfer, raw_disk_size(disk), &range, fault);
	if (r < 0)
		return r;
	transfer->n_total = range.length;
	begin_answer(transfer, vdi, &range, raw_disk_size(disk));
	return send_range(transfer, disk, &range, fault);
}

const struct transfer_handler export_raw_vdi = {
	.name = "http/get_export_raw_vdi",
	.label = "Exporting raw VDI",
	.role = USER_VM_ADMIN,
	.run = run_export,
	.doc = "`vdi`: ref or uuid; `format`: raw. All of the disk, or the part that `Range` "
	       "names.",
};

const struct transfer_handler import_raw_vdi = {
	.name = "http/put_import_raw_vdi",
	.label = "Importing raw VDI",
	.role = USER_VM_ADMIN,
	.run = run_import,
	.doc = "`vdi`: ref or uuid; `format`: raw. From the beginning of the disk on.",
};
