/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as text, RFC 4648 section 4. */
#ifndef FERRY_BASE_BASE64_H
#define FERRY_BASE_BASE64_H

#include "base/buf.h"

#include <stddef.h>

/* Appends. */
void base64_encode(const void *data, size_t length, struct buf *out);
/* Appends; -EBADMSG, with nothing appended, when the text is not exactly in form. */
int base64_decode(const char *text, struct buf *out);

#endif
