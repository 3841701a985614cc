/* SPDX-License-Identifier: Apache-2.0 */
/* Views that more than one command writes. */
#ifndef FERRY_CLI_VIEWS_H
#define FERRY_CLI_VIEWS_H

#include "cli/view.h"

extern const struct view host_view, vbd_view, vdi_view, vif_view;

#endif
