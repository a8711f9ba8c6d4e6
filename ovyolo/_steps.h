/* Small steps of ovyolo._nms that are worth a few instructions instead of a call or a branch. Plain C99/C11 that GCC,
 * Clang and MSVC accept; the vector code is SSE2, part of every x86-64.
 */
#ifndef OVYOLO_STEPS_H
#define OVYOLO_STEPS_H

#include <stdint.h>
#include <string.h>

#include "_cpu.h"

#if defined(_MSC_VER) && !defined(OVYOLO_X86)
#include <intrin.h>
#endif

/* Begins to fetch a line into the cache; never faults. */
static void ovyolo_prefetch(const void *address) {
#ifdef OVYOLO_X86
    _mm_prefetch((const char *)address, _MM_HINT_T0);
#else
    (void)address;
#endif
}

/* The place of the lowest bit that is set; there is one. */
static int ovyolo_lowest_bit(uint32_t bits) {
#ifdef _MSC_VER
    unsigned long place;
    _BitScanForward(&place, bits);
    return (int)place;
#else
    return __builtin_ctz(bits);
#endif
}

/* Whether a box x1 y1 x2 y2 touches a window; corners low and high of it. Without branches, which nobody could predict. */
static int ovyolo_touches(const float *box, const double *low, const double *high) {
#ifdef OVYOLO_X86
    const __m128 corners = _mm_loadu_ps(box);
    const __m128d begins = _mm_cmple_pd(_mm_cvtps_pd(corners), _mm_loadu_pd(high));
    const __m128d ends = _mm_cmpge_pd(_mm_cvtps_pd(_mm_movehl_ps(corners, corners)), _mm_loadu_pd(low));
    return _mm_movemask_pd(_mm_and_pd(begins, ends)) == 3;
#else
    return (box[0] <= high[0]) & (box[1] <= high[1]) & (box[2] >= low[0]) & (box[3] >= low[1]);
#endif
}

/* The cells, `per` of them a pixel, that a point's x and y lie in: floor, for less than a function call each. Far outside
 * any picture all cells become one; order is kept, so ranges stay right. */
static void ovyolo_cells(const double *point, const double *per, int32_t *cell) {
    const double most = 1e9;
#ifdef OVYOLO_X86
    const __m128d exact = _mm_mul_pd(_mm_loadu_pd(point), _mm_loadu_pd(per));
    const __m128d index = _mm_min_pd(_mm_max_pd(exact, _mm_set1_pd(-most)), _mm_set1_pd(most));
    const __m128i whole = _mm_cvttpd_epi32(index);
    const __m128i above = _mm_castpd_si128(_mm_cmplt_pd(index, _mm_cvtepi32_pd(whole)));
    _mm_storel_epi64((__m128i *)cell, _mm_add_epi32(whole, _mm_shuffle_epi32(above, _MM_SHUFFLE(3, 3, 2, 0))));
#else
    for (int j = 0; j < 2; j++) {
        double index = point[j] * per[j];
        index = index > -most ? index : -most;
        index = index < most ? index : most;
        cell[j] = (int32_t)index - (index < (double)(int32_t)index);
    }
#endif
}

/* ---- scores as integers of the same order ---- */

static uint32_t ovyolo_ordered(float value) {
    uint32_t bits;
    value += 0.0f; /* -0 becomes +0 */
    memcpy(&bits, &value, 4);
    return (bits >> 31) ? ~bits : bits | 0x80000000u;
}

static float ovyolo_unordered(uint32_t ordered) {
    float value;
    uint32_t bits = (ordered >> 31) ? ordered & 0x7fffffffu : ~ordered;
    memcpy(&value, &bits, 4);
    return value;
}

#endif
