/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config_supervisor.h"

void config_for_supervisor(const struct config *config, struct supervisor_params *params)
{
	params->watchdog = config->watchdog;
	params->state_dir = config->state_dir;
	params->run_dir = config->run_dir;
	params->data_address = config->data_address;
	params->plain_data = !config->data_tls;
	params->tgtd = config->tgtd;
	params->tgtd_threads = (unsigned)config->tgtd_threads;
	params->qemu_nbd = config->qemu_nbd;
	params->copy_sessions = (unsigned)config->copy_sessions;
	params->copy_request_bytes = config->copy_request_bytes;
	params->copy_in_flight_bytes = config->copy_in_flight_bytes;
	params->bandwidth_bytes_per_sec = config->bandwidth_bytes_per_sec;
	params->max_sending = (unsigned)config->max_sending;
	params->max_queued = (unsigned)config->max_queued;
	params->max_downtime_usec = config->max_downtime_usec;
	params->heartbeat_usec = config->heartbeat_usec;
	params->lease_usec = config->lease_usec;
	params->abandon_usec = config->abandon_usec;
	params->peer_timeout_usec = config->peer_timeout_usec;
}
