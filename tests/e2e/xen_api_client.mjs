// SPDX-License-Identifier: Apache-2.0
// Moves VMs with npm xen-api 4.x, the way orchestrators do. Called by xen_api_client.py with one JSON
// argument: {transport, source, destination, user, password, vms: [uuid, uuid], sr, network}.
import assert from 'node:assert/strict'
import { createClient } from 'xen-api'

const given = JSON.parse(process.argv[2])

function client(url) {
  return createClient({
    url,
    auth: { user: given.user, password: given.password },
    allowUnauthorized: true,
    transport: given.transport,
    debounce: 100,
  })
}

// Resolves when the objects of `xapi` fulfil the condition; the caller's time limit is the test's.
function until(xapi, condition) {
  return new Promise(resolve => {
    const look = () => {
      if (condition(Object.values(xapi.objects.all))) {
        for (const event of ['add', 'update', 'remove']) xapi.objects.off(event, look)
        resolve()
      }
    }
    for (const event of ['add', 'update', 'remove']) xapi.objects.on(event, look)
    look()
  })
}

const is = (type, uuid) => object => object.$type === type && object.uuid === uuid

async function move(a, b, uuid, send) {
  const vm = Object.values(a.objects.all).find(is('VM', uuid))
  assert.ok(vm, `VM ${uuid} is not in the cache of the source`)
  const disks = vm.$VBDs.filter(vbd => vbd.type === 'Disk').map(vbd => vbd.VDI)
  const host = b.pool.master
  const pif = b.getObject(host).$PIFs.find(each => each.management)
  const token = await b.call('host.migrate_receive', host, pif.network, {})
  const args = [
    vm.$ref,
    token,
    true,
    Object.fromEntries(disks.map(vdi => [vdi, given.sr])),
    Object.fromEntries(vm.VIFs.map(vif => [vif, given.network])),
    { force: 'true' },
  ]
  await a.callAsync('VM.assert_can_migrate', ...args)
  const ref = await send(args)
  await until(b, objects => objects.some(is('VM', uuid)))
  await until(a, objects => !objects.some(is('VM', uuid)))
  await until(a, objects => disks.every(vdi => !objects.some(object => object.$ref === vdi)))
  assert.equal(Object.values(b.objects.all).find(is('VM', uuid)).$ref, ref)
}

async function failsWith(code, promise) {
  await assert.rejects(promise, error => {
    assert.equal(error.code, code)
    return true
  })
}

const a = client(given.source)
const b = client(given.destination)
await Promise.all([a.connect(), b.connect()])
await Promise.all([a.objectsFetched, b.objectsFetched])
assert.equal(a.pool.$type, 'pool')

await move(a, b, given.vms[0], args => a.callAsync('VM.migrate_send', ...args))
await move(a, b, given.vms[1], args => a.call('VM.migrate_send', ...args))

// callAsync destroys its task when it is done: none may be left, in the cache neither.
await until(a, objects => !objects.some(object => object.$type === 'task' && object.name_label.startsWith('Async.')))
await failsWith('HANDLE_INVALID', a.call('VM.get_record', 'OpaqueRef:nothing'))
await failsWith('HANDLE_INVALID', a.callAsync('VM.migrate_send', 'OpaqueRef:nothing', {}, true, {}, {}, {}))
await a.barrier()

await Promise.all([a.disconnect(), b.disconnect()])
