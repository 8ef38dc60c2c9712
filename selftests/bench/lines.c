// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin of QEMU's emulator (TCG) that records the guest's accesses to memory, for lines.py.
 *
 * to=FILE: FILE.on is one byte, which lines.py sets to a number while accesses are to be recorded under
 * that number. FILE gets a struct access for each access of the guest's kernel.
 *
 * QEMU's header is not in Debian's packages. The declarations below are those parts of its plugin API
 * (version 4) that are used: https://www.qemu.org/docs/master/devel/tcg-plugins.html
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum { WITHOUT_REGISTERS = 0 };	/* enum qemu_plugin_cb_flags */
enum { READS = 1, WRITES = 2 };	/* enum qemu_plugin_mem_rw */

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_atexit_cb(uint64_t id, void (*ended)(uint64_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
				      void (*accessed)(unsigned int cpu, uint32_t info, uint64_t address, void *data),
				      int flags, int rw, void *data);
bool qemu_plugin_mem_is_store(uint32_t info);
unsigned int qemu_plugin_mem_size_shift(uint32_t info);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

struct access {
	uint64_t code;		/* the instruction */
	uint64_t address;	/* of the data */
	uint8_t cpu;
	uint8_t is_write;
	uint8_t size;
	uint8_t phase;		/* the number in FILE.on */
	uint8_t unused[4];
};

static FILE *file;
static const volatile uint8_t *on;
static volatile bool recorded;

static void accessed(unsigned int cpu, uint32_t info, uint64_t address, void *code)
{
	struct access access = {
		.code = (uintptr_t)code,
		.address = address,
		.cpu = cpu,
		.is_write = qemu_plugin_mem_is_store(info),
		.size = 1 << qemu_plugin_mem_size_shift(info),
		.phase = *on,
	};

	if (access.phase) {
		fwrite(&access, sizeof(access), 1, file);
		recorded = true;
	} else if (recorded) {
		recorded = false;
		fflush(file);
	}
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t code = qemu_plugin_insn_vaddr(insn);

		/* Addresses of the kernel are the upper half. */
		if (code >> 63)
			qemu_plugin_register_vcpu_mem_cb(insn, accessed, WITHOUT_REGISTERS, READS | WRITES,
							 (void *)(uintptr_t)code);
	}
}

static void ended(uint64_t id, void *data)
{
	(void)id;
	(void)data;
	fclose(file);
}

__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	char name[4096];
	int fd;

	(void)info;
	if (argc != 1 || strncmp(argv[0], "to=", 3))
		return -1;
	snprintf(name, sizeof(name), "%s.on", argv[0] + 3);
	fd = open(name, O_RDONLY);
	if (fd < 0)
		return -1;
	on = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
	file = fopen(argv[0] + 3, "w");
	if (on == MAP_FAILED || !file)
		return -1;
	setvbuf(file, NULL, _IOFBF, 1 << 20);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, ended, NULL);
	return 0;
}
