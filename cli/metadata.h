/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry vm export-metadata` and `import-metadata`, `ferry pool export-metadata`. */
#ifndef FERRY_CLI_METADATA_H
#define FERRY_CLI_METADATA_H

#include "cli/context.h"

#define N_METADATA_IMPORT_OPTIONS 3
extern const struct option metadata_import_options[N_METADATA_IMPORT_OPTIONS];

int vm_export_metadata(struct context *context, struct fault *fault);
int vm_import_metadata(struct context *context, struct fault *fault);
int pool_export_metadata(struct context *context, struct fault *fault);

#endif
