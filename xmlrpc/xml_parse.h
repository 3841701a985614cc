/* SPDX-License-Identifier: Apache-2.0 */
/* An XML-RPC document as values; private to this layer's codec. The one place that sees libxml2. */
#ifndef FERRY_XMLRPC_XML_PARSE_H
#define FERRY_XMLRPC_XML_PARSE_H

#include "xmlrpc/codec.h"

enum xml_document_kind { XML_METHOD_CALL, XML_METHOD_RESPONSE };

struct xml_document {
	enum xml_document_kind kind;
	char *method;         /* NULL in a response */
	struct value *params; /* array */
	struct value *fault;  /* what <fault> held; NULL without */
};

/* Pure; the caller clears *document in any case. -EBADMSG: not XML-RPC, or over the limits.
 * -EILSEQ: not UTF-8 (INVALID_VALUE). */
int xml_document_parse(const void *data, size_t length, const struct codec_limits *limits,
	struct xml_document *document, struct fault *fault);
void xml_document_clear(struct xml_document *document);

#define CLEANUP_XML_DOCUMENT CLEANUP(xml_document_clear)

#endif
