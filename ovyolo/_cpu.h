/* Which instruction sets this CPU has and this operating system lets programs use. */
#ifndef OVYOLO_CPU_H
#define OVYOLO_CPU_H

#include <stdint.h>

#if (defined(__x86_64__) || (defined(_M_X64) && !defined(_M_ARM64EC)))
#define OVYOLO_X86 1
#include <immintrin.h>
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(__GNUC__) || defined(__clang__)
#define OVYOLO_TARGET_AVX2 __attribute__((target("avx2")))
#define OVYOLO_TARGET_XSAVE __attribute__((target("xsave")))
#else
#define OVYOLO_TARGET_AVX2
#define OVYOLO_TARGET_XSAVE
#endif
#endif

enum {
    OVYOLO_HAS_AVX2 = 1,
    OVYOLO_HAS_FMA = 2,
    OVYOLO_HAS_AVX512F = 4,
    OVYOLO_HAS_AVX512_VNNI = 8,
    OVYOLO_HAS_AVX512_BF16 = 16,
    OVYOLO_HAS_AVX_VNNI = 32,
    OVYOLO_HAS_AMX_INT8 = 64,
    OVYOLO_HAS_AMX_BF16 = 128
};

#ifdef OVYOLO_X86
/* By CPUID itself: __builtin_cpu_supports needs a run-time library that not every compiler links. */
static void ovyolo_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
#ifdef _MSC_VER
    int out[4];
    __cpuidex(out, (int)leaf, (int)subleaf);
    for (int i = 0; i < 4; i++) r[i] = (uint32_t)out[i];
#else
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
#endif
}

OVYOLO_TARGET_XSAVE static uint64_t ovyolo_saved_state(void) { return (uint64_t)_xgetbv(0); }
#endif

/* A sum of OVYOLO_HAS_*; 0 on other architectures. Bits as in Intel's Software Developer's Manual, CPUID. */
static int ovyolo_cpu_features(void) {
    int found = 0;
#ifdef OVYOLO_X86
    const uint32_t avx_and_osxsave = 1u << 28 | 1u << 27;
    uint32_t one[4], seven[4], more[4] = {0, 0, 0, 0};
    uint64_t saved;
    ovyolo_cpuid(0, 0, one);
    if (one[0] < 7) return 0;
    ovyolo_cpuid(1, 0, one);
    if ((one[2] & avx_and_osxsave) != avx_and_osxsave) return 0;
    saved = ovyolo_saved_state();
    if ((saved & 0x6) != 0x6) return 0; /* XMM and YMM registers */
    ovyolo_cpuid(7, 0, seven);
    if (seven[0] >= 1) ovyolo_cpuid(7, 1, more);
    if (seven[1] & 1u << 5) found |= OVYOLO_HAS_AVX2;
    if (one[2] & 1u << 12) found |= OVYOLO_HAS_FMA;
    if (more[0] & 1u << 4) found |= OVYOLO_HAS_AVX_VNNI;
    if ((saved & 0xe0) == 0xe0) { /* mask and ZMM registers */
        if (seven[1] & 1u << 16) found |= OVYOLO_HAS_AVX512F;
        if (seven[2] & 1u << 11) found |= OVYOLO_HAS_AVX512_VNNI;
        if (more[0] & 1u << 5) found |= OVYOLO_HAS_AVX512_BF16;
    }
    if ((saved & 0x60000) == 0x60000) { /* tiles */
        if (seven[3] & 1u << 25) found |= OVYOLO_HAS_AMX_INT8;
        if (seven[3] & 1u << 22) found |= OVYOLO_HAS_AMX_BF16;
    }
#endif
    return found;
}

#endif
