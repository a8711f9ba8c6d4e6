/* The hot loops of ovyolo._nms, each in plain C, SSE2 and AVX2, chosen at run time.
 *
 * All versions perform the same IEEE operations in the same order (no FMA, no reassociation), so results are equal
 * bit for bit whichever is chosen. Plain C99/C11 that GCC, Clang and MSVC accept.
 *
 * A "group" is eight neighbouring cells of one H*W plane: its first position and a mask of the lanes that count.
 * Groups turn scattered reads into contiguous ones without gather instructions, which are slow on many Intel CPUs.
 */
#ifndef OVYOLO_SIMD_H
#define OVYOLO_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "_cpu.h"

enum { OVYOLO_LANES = 8, OVYOLO_PLAIN = 0, OVYOLO_SSE2 = 1, OVYOLO_AVX2 = 2 };

/* Eight kept boxes of one class. Unused lanes hold boxes that overlap nothing. A block is part of two chains. */
typedef struct {
    float x1[8], y1[8], x2[8], y2[8], area[8];
    int32_t used, class_id, level, next[2];
} ovyolo_block;

typedef struct {
    float x1, y1, x2, y2, area;
} ovyolo_box;

typedef int64_t (*ovyolo_scan_fn)(const float *, int64_t, const float *, float, int32_t *, uint8_t *);
typedef uint32_t (*ovyolo_best_fn)(const float *, int64_t, int32_t, int, const int32_t *, const int32_t *, float *,
                                   int32_t *);
typedef int64_t (*ovyolo_hits_fn)(const float *, const int32_t *, const float *, const uint8_t *, int64_t, int, int64_t,
                                  int32_t *, uint8_t *);
typedef int (*ovyolo_chain_fn)(const ovyolo_block *, int32_t, int, int32_t, const ovyolo_box *, float);

static float ovyolo_min(float a, float b) { return a < b ? a : b; }
static float ovyolo_max(float a, float b) { return a > b ? a : b; }

/* Whether IoU of two boxes is above `iou`, without a division. */
static int ovyolo_overlap(const ovyolo_box *a, const ovyolo_box *b, float iou) {
    float width = ovyolo_max(ovyolo_min(a->x2, b->x2) - ovyolo_max(a->x1, b->x1), 0.0f);
    float height = ovyolo_max(ovyolo_min(a->y2, b->y2) - ovyolo_max(a->y1, b->y1), 0.0f);
    float inter = width * height;
    return inter > iou * ((a->area + b->area) - inter);
}

/* What to fetch into the cache while v[i] of v[0:n] is looked at: a page further on, or, behind the end, of `next`, which
 * is looked at afterwards. The processor itself does not fetch beyond pages. */
static const float *ovyolo_ahead(const float *v, int64_t n, const float *next, int64_t i) {
    int64_t at = i + 1024;
    return at < n ? v + at : next + (at - n);
}

/* ---- plain C ---- */

/* Groups of `v[0:n]` with a lane that is above `t` or NaN. The last group is moved back to end at n, its mask covering
 * only lanes that no earlier group has; with n < 8 there is one short group. Returns how many were written. */
static int64_t ovyolo_scan_from(const float *v, int64_t n, int64_t i, float t, int32_t *start, uint8_t *mask,
                                int64_t count) {
    while (i < n) {
        int64_t first = (n - i >= 8 || n < 8) ? i : n - 8;
        int64_t end = i + 8 < n ? i + 8 : n;
        uint32_t m = 0;
        for (; i < end; i++) m |= (uint32_t)!(v[i] <= t) << (i - first);
        start[count] = (int32_t)first;
        mask[count] = (uint8_t)m;
        count += m != 0;
    }
    return count;
}

static int64_t ovyolo_scan_plain(const float *v, int64_t n, const float *next, float t, int32_t *start, uint8_t *mask) {
    (void)next;
    return ovyolo_scan_from(v, n, 0, t, start, mask, 0);
}

/* For each lane of one group, the greatest of `classes` planes (the first among equals) and which it is.
 * `planes` points at the group's first cell in the first plane. Returns the mask of lanes with a NaN in any plane. */
static uint32_t ovyolo_best_of_one(const float *planes, int64_t plane_size, int32_t classes, int lanes, float *best,
                                   int32_t *which) {
    uint32_t nan = 0;
    for (int j = 0; j < 8; j++) {
        best[j] = -INFINITY;
        which[j] = 0;
    }
    for (int32_t k = 0; k < classes; k++) {
        const float *plane = planes + k * plane_size;
        for (int j = 0; j < lanes; j++) {
            float v = plane[j];
            nan |= (uint32_t)(v != v) << j;
            if (v > best[j]) {
                best[j] = v;
                which[j] = k;
            }
        }
    }
    return nan;
}

/* The same for four groups, which begin at `start` of each plane: a byte of the mask for each. Those at `later` will be
 * asked for next, and the vector code begins to fetch them. */
static uint32_t ovyolo_best_plain(const float *planes, int64_t plane_size, int32_t classes, int lanes,
                                  const int32_t *start, const int32_t *later, float *best, int32_t *which) {
    uint32_t nan = 0;
    (void)later;
    for (int g = 0; g < 4; g++)
        nan |= ovyolo_best_of_one(planes + start[g], plane_size, classes, lanes, best + 8 * g, which + 8 * g) << 8 * g;
    return nan;
}

/* Groups with an active lane of `plane` above its own threshold (eight for each group) or NaN. The vector code fetches
 * what lies `ahead` floats further on, in a plane soon to be read, into the cache; fetching never faults.
 */
static int64_t ovyolo_hits_plain(const float *plane, const int32_t *start, const float *threshold,
                                 const uint8_t *active, int64_t groups, int lanes, int64_t ahead, int32_t *hit,
                                 uint8_t *mask) {
    int64_t count = 0;
    (void)ahead;
    for (int64_t g = 0; g < groups; g++) {
        const float *v = plane + start[g];
        uint32_t m = 0;
        for (int j = 0; j < lanes; j++) m |= (uint32_t)!(v[j] <= threshold[8 * g + j]) << j;
        m &= active[g];
        hit[count] = (int32_t)g;
        mask[count] = (uint8_t)m;
        count += m != 0;
    }
    return count;
}

/* Whether a box of the class has IoU above `iou` with `box`, in the chain that begins with block `at` (-1: none) and
 * goes on by `next[link]`. */
static int ovyolo_chain_plain(const ovyolo_block *blocks, int32_t at, int link, int32_t class_id,
                             const ovyolo_box *box, float iou) {
    for (; at >= 0; at = blocks[at].next[link]) {
        const ovyolo_block *b = &blocks[at];
        if (b->class_id != class_id) continue;
        for (int j = 0; j < b->used; j++) {
            ovyolo_box kept;
            kept.x1 = b->x1[j];
            kept.y1 = b->y1[j];
            kept.x2 = b->x2[j];
            kept.y2 = b->y2[j];
            kept.area = b->area[j];
            if (ovyolo_overlap(box, &kept, iou)) return 1;
        }
    }
    return 0;
}

#ifdef OVYOLO_X86

/* ---- SSE2: part of every x86-64 ---- */

static int64_t ovyolo_scan_sse2(const float *v, int64_t n, const float *next, float t, int32_t *start, uint8_t *mask) {
    const __m128 limit = _mm_set1_ps(t);
    int64_t i = 0, count = 0;
    for (; i + 8 <= n; i += 8) {
        _mm_prefetch((const char *)ovyolo_ahead(v, n, next, i), _MM_HINT_T1);
        __m128 low = _mm_cmpnle_ps(_mm_loadu_ps(v + i), limit), high = _mm_cmpnle_ps(_mm_loadu_ps(v + i + 4), limit);
        int m = _mm_movemask_ps(low) | _mm_movemask_ps(high) << 4;
        start[count] = (int32_t)i;
        mask[count] = (uint8_t)m;
        count += m != 0;
    }
    return ovyolo_scan_from(v, n, i, t, start, mask, count);
}

static uint32_t ovyolo_best_sse2(const float *planes, int64_t plane_size, int32_t classes, int lanes,
                                 const int32_t *start, const int32_t *later, float *best, int32_t *which) {
    if (lanes < 8) return ovyolo_best_plain(planes, plane_size, classes, lanes, start, later, best, which);
    uint32_t nan = 0;
    for (int half = 0; half < 8; half++) {
        const float *cells = planes + start[half / 2] + 4 * (half % 2), *next = planes + later[half / 2];
        __m128 top = _mm_set1_ps(-INFINITY), odd = _mm_setzero_ps();
        __m128i arg = _mm_setzero_si128();
        for (int32_t k = 0; k < classes; k++) {
            __m128 v = _mm_loadu_ps(cells + k * plane_size);
            if (half % 2 == 0) _mm_prefetch((const char *)(next + k * plane_size), _MM_HINT_T1);
            __m128 more = _mm_cmpgt_ps(v, top);
            __m128i moved = _mm_castps_si128(more);
            odd = _mm_or_ps(odd, _mm_cmpunord_ps(v, v));
            top = _mm_or_ps(_mm_and_ps(more, v), _mm_andnot_ps(more, top));
            arg = _mm_or_si128(_mm_and_si128(moved, _mm_set1_epi32(k)), _mm_andnot_si128(moved, arg));
        }
        _mm_storeu_ps(best + 4 * half, top);
        _mm_storeu_si128((__m128i *)(which + 4 * half), arg);
        nan |= (uint32_t)_mm_movemask_ps(odd) << 4 * half;
    }
    return nan;
}

static int64_t ovyolo_hits_sse2(const float *plane, const int32_t *start, const float *threshold,
                                const uint8_t *active, int64_t groups, int lanes, int64_t ahead, int32_t *hit,
                                uint8_t *mask) {
    if (lanes < 8) return ovyolo_hits_plain(plane, start, threshold, active, groups, lanes, ahead, hit, mask);
    int64_t count = 0;
    for (int64_t g = 0; g < groups; g++) {
        const float *v = plane + start[g], *t = threshold + 8 * g;
        _mm_prefetch((const char *)(v + ahead), _MM_HINT_T1);
        __m128 low = _mm_cmpnle_ps(_mm_loadu_ps(v), _mm_loadu_ps(t));
        __m128 high = _mm_cmpnle_ps(_mm_loadu_ps(v + 4), _mm_loadu_ps(t + 4));
        int m = (_mm_movemask_ps(low) | _mm_movemask_ps(high) << 4) & active[g];
        hit[count] = (int32_t)g;
        mask[count] = (uint8_t)m;
        count += m != 0;
    }
    return count;
}

static int ovyolo_chain_sse2(const ovyolo_block *blocks, int32_t at, int link, int32_t class_id,
                             const ovyolo_box *box, float iou) {
    const __m128 x1 = _mm_set1_ps(box->x1), y1 = _mm_set1_ps(box->y1), x2 = _mm_set1_ps(box->x2);
    const __m128 y2 = _mm_set1_ps(box->y2), area = _mm_set1_ps(box->area), limit = _mm_set1_ps(iou);
    const __m128 zero = _mm_setzero_ps();
    for (; at >= 0; at = blocks[at].next[link]) {
        const ovyolo_block *b = &blocks[at];
        if (b->class_id != class_id) continue;
        for (int j = 0; j < b->used; j += 4) {
            __m128 right = _mm_min_ps(x2, _mm_loadu_ps(b->x2 + j)), left = _mm_max_ps(x1, _mm_loadu_ps(b->x1 + j));
            __m128 bottom = _mm_min_ps(y2, _mm_loadu_ps(b->y2 + j)), top = _mm_max_ps(y1, _mm_loadu_ps(b->y1 + j));
            __m128 width = _mm_max_ps(_mm_sub_ps(right, left), zero);
            __m128 height = _mm_max_ps(_mm_sub_ps(bottom, top), zero);
            __m128 inter = _mm_mul_ps(width, height);
            __m128 both = _mm_sub_ps(_mm_add_ps(area, _mm_loadu_ps(b->area + j)), inter);
            if (_mm_movemask_ps(_mm_cmpgt_ps(inter, _mm_mul_ps(limit, both)))) return 1;
        }
    }
    return 0;
}

/* ---- AVX2 ---- */

/* The lanes of four comparisons as masks; 0 where there are none, as mostly. */
OVYOLO_TARGET_AVX2 static int ovyolo_masks_of_four(__m256 a, __m256 b, __m256 c, __m256 d, int m[4]) {
    if (!_mm256_movemask_ps(_mm256_or_ps(_mm256_or_ps(a, b), _mm256_or_ps(c, d)))) return 0;
    m[0] = _mm256_movemask_ps(a);
    m[1] = _mm256_movemask_ps(b);
    m[2] = _mm256_movemask_ps(c);
    m[3] = _mm256_movemask_ps(d);
    return 1;
}

OVYOLO_TARGET_AVX2 static int64_t ovyolo_scan_avx2(const float *v, int64_t n, const float *next, float t,
                                            int32_t *start, uint8_t *mask) {
    const __m256 limit = _mm256_set1_ps(t);
    int64_t i = 0, count = 0;
    for (; i + 32 <= n; i += 32) {
        const float *ahead = ovyolo_ahead(v, n, next, i);
        _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        _mm_prefetch((const char *)(ahead + 16), _MM_HINT_T1);
        __m256 a = _mm256_cmp_ps(_mm256_loadu_ps(v + i), limit, _CMP_NLE_UQ);
        __m256 b = _mm256_cmp_ps(_mm256_loadu_ps(v + i + 8), limit, _CMP_NLE_UQ);
        __m256 c = _mm256_cmp_ps(_mm256_loadu_ps(v + i + 16), limit, _CMP_NLE_UQ);
        __m256 d = _mm256_cmp_ps(_mm256_loadu_ps(v + i + 24), limit, _CMP_NLE_UQ);
        int m[4];
        if (!ovyolo_masks_of_four(a, b, c, d, m)) continue;
        for (int j = 0; j < 4; j++) {
            start[count] = (int32_t)(i + 8 * j);
            mask[count] = (uint8_t)m[j];
            count += m[j] != 0;
        }
    }
    return ovyolo_scan_from(v, n, i, t, start, mask, count);
}

OVYOLO_TARGET_AVX2 static uint32_t ovyolo_best_avx2(const float *planes, int64_t plane_size, int32_t classes, int lanes,
                                             const int32_t *start, const int32_t *later, float *best,
                                             int32_t *which) {
    if (lanes < 8) return ovyolo_best_plain(planes, plane_size, classes, lanes, start, later, best, which);
    __m256 top[4], odd[4];
    __m256i arg[4];
    uint32_t nan = 0;
    for (int g = 0; g < 4; g++) {
        top[g] = _mm256_set1_ps(-INFINITY);
        odd[g] = _mm256_setzero_ps();
        arg[g] = _mm256_setzero_si256();
    }
    for (int32_t k = 0; k < classes; k++) {
        const float *plane = planes + k * plane_size;
        const __m256i number = _mm256_set1_epi32(k);
        for (int g = 0; g < 4; g++) {
            __m256 v = _mm256_loadu_ps(plane + start[g]);
            _mm_prefetch((const char *)(plane + later[g]), _MM_HINT_T1);
            __m256 more = _mm256_cmp_ps(v, top[g], _CMP_GT_OQ);
            odd[g] = _mm256_or_ps(odd[g], _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
            top[g] = _mm256_blendv_ps(top[g], v, more);
            arg[g] = _mm256_blendv_epi8(arg[g], number, _mm256_castps_si256(more));
        }
    }
    for (int g = 0; g < 4; g++) {
        _mm256_storeu_ps(best + 8 * g, top[g]);
        _mm256_storeu_si256((__m256i *)(which + 8 * g), arg[g]);
        nan |= (uint32_t)_mm256_movemask_ps(odd[g]) << 8 * g;
    }
    return nan;
}

OVYOLO_TARGET_AVX2 static int64_t ovyolo_hits_avx2(const float *plane, const int32_t *start, const float *threshold,
                                            const uint8_t *active, int64_t groups, int lanes, int64_t ahead,
                                            int32_t *hit, uint8_t *mask) {
    if (lanes < 8) return ovyolo_hits_plain(plane, start, threshold, active, groups, lanes, ahead, hit, mask);
    const float *later = plane + ahead;
    int64_t count = 0, g = 0;
    for (; g + 4 <= groups; g += 4) {
        const int32_t *s = start + g;
        const float *t = threshold + 8 * g;
        for (int j = 0; j < 4; j++) _mm_prefetch((const char *)(later + s[j]), _MM_HINT_T1);
        __m256 a = _mm256_cmp_ps(_mm256_loadu_ps(plane + s[0]), _mm256_loadu_ps(t), _CMP_NLE_UQ);
        __m256 b = _mm256_cmp_ps(_mm256_loadu_ps(plane + s[1]), _mm256_loadu_ps(t + 8), _CMP_NLE_UQ);
        __m256 c = _mm256_cmp_ps(_mm256_loadu_ps(plane + s[2]), _mm256_loadu_ps(t + 16), _CMP_NLE_UQ);
        __m256 d = _mm256_cmp_ps(_mm256_loadu_ps(plane + s[3]), _mm256_loadu_ps(t + 24), _CMP_NLE_UQ);
        int m[4];
        if (!ovyolo_masks_of_four(a, b, c, d, m)) continue;
        for (int j = 0; j < 4; j++) {
            hit[count] = (int32_t)(g + j);
            mask[count] = (uint8_t)(m[j] & active[g + j]);
            count += mask[count] != 0;
        }
    }
    for (; g < groups; g++) {
        __m256 above = _mm256_cmp_ps(_mm256_loadu_ps(plane + start[g]), _mm256_loadu_ps(threshold + 8 * g), _CMP_NLE_UQ);
        _mm_prefetch((const char *)(later + start[g]), _MM_HINT_T1);
        hit[count] = (int32_t)g;
        mask[count] = (uint8_t)(_mm256_movemask_ps(above) & active[g]);
        count += mask[count] != 0;
    }
    return count;
}

OVYOLO_TARGET_AVX2 static int ovyolo_chain_avx2(const ovyolo_block *blocks, int32_t at, int link, int32_t class_id,
                                               const ovyolo_box *box, float iou) {
    const __m256 x1 = _mm256_set1_ps(box->x1), y1 = _mm256_set1_ps(box->y1), x2 = _mm256_set1_ps(box->x2);
    const __m256 y2 = _mm256_set1_ps(box->y2), area = _mm256_set1_ps(box->area), limit = _mm256_set1_ps(iou);
    const __m256 zero = _mm256_setzero_ps();
    for (; at >= 0; at = blocks[at].next[link]) {
        const ovyolo_block *b = &blocks[at];
        if (b->class_id != class_id) continue;
        __m256 right = _mm256_min_ps(x2, _mm256_loadu_ps(b->x2)), left = _mm256_max_ps(x1, _mm256_loadu_ps(b->x1));
        __m256 bottom = _mm256_min_ps(y2, _mm256_loadu_ps(b->y2)), top = _mm256_max_ps(y1, _mm256_loadu_ps(b->y1));
        __m256 width = _mm256_max_ps(_mm256_sub_ps(right, left), zero);
        __m256 height = _mm256_max_ps(_mm256_sub_ps(bottom, top), zero);
        __m256 inter = _mm256_mul_ps(width, height);
        __m256 both = _mm256_sub_ps(_mm256_add_ps(area, _mm256_loadu_ps(b->area)), inter);
        if (_mm256_movemask_ps(_mm256_cmp_ps(inter, _mm256_mul_ps(limit, both), _CMP_GT_OQ))) return 1;
    }
    return 0;
}

#endif

/* ---- choice ---- */

static int ovyolo_widest_level(void) {
#ifdef OVYOLO_X86
    return (ovyolo_cpu_features() & OVYOLO_HAS_AVX2) ? OVYOLO_AVX2 : OVYOLO_SSE2;
#else
    return OVYOLO_PLAIN;
#endif
}

static ovyolo_scan_fn ovyolo_scan = ovyolo_scan_plain;
static ovyolo_best_fn ovyolo_best = ovyolo_best_plain;
static ovyolo_hits_fn ovyolo_hits = ovyolo_hits_plain;
static ovyolo_chain_fn ovyolo_chain = ovyolo_chain_plain;

static void ovyolo_use_level(int level) {
    ovyolo_scan = ovyolo_scan_plain;
    ovyolo_best = ovyolo_best_plain;
    ovyolo_hits = ovyolo_hits_plain;
    ovyolo_chain = ovyolo_chain_plain;
#ifdef OVYOLO_X86
    if (level == OVYOLO_SSE2) {
        ovyolo_scan = ovyolo_scan_sse2;
        ovyolo_best = ovyolo_best_sse2;
        ovyolo_hits = ovyolo_hits_sse2;
        ovyolo_chain = ovyolo_chain_sse2;
    } else if (level == OVYOLO_AVX2) {
        ovyolo_scan = ovyolo_scan_avx2;
        ovyolo_best = ovyolo_best_avx2;
        ovyolo_hits = ovyolo_hits_avx2;
        ovyolo_chain = ovyolo_chain_avx2;
    }
#else
    (void)level;
#endif
}

#endif
