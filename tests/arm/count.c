/* A QEMU plugin that counts the instructions of an emulated program. Each getppid(), a
   system call that nothing else makes, writes the count so far to the standard error. */

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What is used of QEMU's plugin interface, version 1. Debian ships no header for it. */
typedef uint64_t qemu_plugin_id_t;
enum { INLINE_ADD_U64 = 0 };
int qemu_plugin_version = 1;
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *));
size_t qemu_plugin_tb_n_insns(const void *block);
void qemu_plugin_register_vcpu_tb_exec_inline(void *block, int op, void *to, uint64_t value);
void qemu_plugin_register_vcpu_syscall_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                               uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));

enum { GETPPID = 173 }; /* its number on aarch64 */

static uint64_t executed;

static void translated(qemu_plugin_id_t id, void *block) {
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &executed,
                                             qemu_plugin_tb_n_insns(block));
}

static void system_call(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a1,
                        uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                        uint64_t a7, uint64_t a8) {
    if (number == GETPPID) dprintf(2, "instructions executed: %" PRIu64 "\n", executed);
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
