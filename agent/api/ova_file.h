/* SPDX-License-Identifier: Apache-2.0 */
/* A document of agent/migrate/ova.h as the file that goes over the wire: a tar (POSIX.1, ustar)
 * whose first member is ova.xml, an XML-RPC value. */
#ifndef FERRY_AGENT_API_OVA_FILE_H
#define FERRY_AGENT_API_OVA_FILE_H

#include "base/buf.h"
#include "base/fault.h"
#include "base/value.h"

/* Of the file, and of values in the document. */
#define OVA_MAX_BYTES  ((size_t)4 << 20)
#define OVA_MAX_VALUES 100000

/* -EFBIG with IMPORT_ERROR: it would not be read again. */
int ova_file_write(const struct value *document, struct buf *out, struct fault *fault);
/* What follows the first member is passed over. IMPORT_ERROR_UNEXPECTED_FILE ["ova.xml", found],
 * IMPORT_ERROR [text]. */
int ova_file_read(const struct buf *file, struct value **ret_document, struct fault *fault);

#endif
