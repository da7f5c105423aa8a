/* Multi-scale deformable attention on one processor core: bilinear samples of all levels, weighted and summed.
 *
 * value     (B, S, H, D)          the levels one after another, S = sum of their heights times widths
 * places    (B, Q, H, L, P, 2)    x and y in 0..1 of a level
 * weights   (B, Q, H, L, P)
 * shapes    (L, 2)                height and width of each level
 * out, up   (B, Q, H, D)          result, and the gradient that comes back to it
 * Pixels outside a level are zero; pixel centres lie at half numbers, as in grid_sample with align_corners=False.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const float *corner[4]; /* NULL where it lies outside */
    ptrdiff_t offset[4];
    float share[4], across, down;
} Sample;

static inline int place(Sample *s, const float *level, float x, float y, int64_t high, int64_t wide, ptrdiff_t stride) {
    float at_x = x * wide - 0.5f, at_y = y * high - 0.5f;
    if (!(at_x > -1 && at_y > -1 && at_x < wide && at_y < high)) return 0;
    int64_t left = (int64_t)floorf(at_x), top = (int64_t)floorf(at_y);
    s->across = at_x - left;
    s->down = at_y - top;
    for (int k = 0; k < 4; k++) {
        int64_t col = left + (k & 1), row = top + (k >> 1);
        int inside = col >= 0 && row >= 0 && col < wide && row < high;
        s->offset[k] = (row * wide + col) * stride;
        s->corner[k] = inside ? level + s->offset[k] : NULL;
        s->share[k] = ((k & 1) ? s->across : 1 - s->across) * ((k >> 1) ? s->down : 1 - s->down);
    }
    return 1;
}

static inline __attribute__((always_inline)) void forward_of(
    const float *restrict value, const float *places, const float *weights, const int64_t *shapes, float *restrict out,
    int64_t B, int64_t S, int64_t Q, int64_t H, int64_t L, int64_t P, const int64_t D) {
    for (int64_t b = 0; b < B; b++)
        for (int64_t q = 0; q < Q; q++)
            for (int64_t h = 0; h < H; h++) {
                int64_t row = (b * Q + q) * H + h;
                float *restrict into = out + row * D;
                for (int64_t d = 0; d < D; d++) into[d] = 0;
                const float *level = value + (b * S * H + h) * D;
                for (int64_t l = 0; l < L; l++) {
                    int64_t high = shapes[2 * l], wide = shapes[2 * l + 1];
                    for (int64_t p = 0; p < P; p++) {
                        int64_t one = (row * L + l) * P + p;
                        Sample s;
                        if (!place(&s, level, places[2 * one], places[2 * one + 1], high, wide, H * D)) continue;
                        for (int k = 0; k < 4; k++) {
                            const float *restrict from = s.corner[k];
                            if (!from) continue;
                            float much = weights[one] * s.share[k];
                            for (int64_t d = 0; d < D; d++) into[d] += much * from[d];
                        }
                    }
                    level += high * wide * H * D;
                }
            }
}

static inline __attribute__((always_inline)) void backward_of(
    const float *value, const float *places, const float *weights, const int64_t *shapes, const float *up,
    float *to_value, float *to_places, float *to_weights,
    int64_t B, int64_t S, int64_t Q, int64_t H, int64_t L, int64_t P, const int64_t D) {
    for (int64_t b = 0; b < B; b++)
        for (int64_t q = 0; q < Q; q++)
            for (int64_t h = 0; h < H; h++) {
                int64_t row = (b * Q + q) * H + h;
                const float *restrict back = up + row * D;
                ptrdiff_t start = (b * S * H + h) * D;
                for (int64_t l = 0; l < L; l++) {
                    int64_t high = shapes[2 * l], wide = shapes[2 * l + 1];
                    for (int64_t p = 0; p < P; p++) {
                        int64_t one = (row * L + l) * P + p;
                        Sample s;
                        to_weights[one] = to_places[2 * one] = to_places[2 * one + 1] = 0;
                        if (!place(&s, value + start, places[2 * one], places[2 * one + 1], high, wide, H * D)) continue;
                        float dot[4] = {0, 0, 0, 0};
                        for (int k = 0; k < 4; k++) {
                            const float *restrict from = s.corner[k];
                            if (!from) continue;
                            float much = weights[one] * s.share[k], sum = 0;
                            float *restrict to = to_value + start + s.offset[k];
                            for (int64_t d = 0; d < D; d++) {
                                sum += back[d] * from[d];
                                to[d] += much * back[d];
                            }
                            dot[k] = sum;
                            to_weights[one] += s.share[k] * sum;
                        }
                        float by_x = (1 - s.down) * (dot[1] - dot[0]) + s.down * (dot[3] - dot[2]);
                        float by_y = (1 - s.across) * (dot[2] - dot[0]) + s.across * (dot[3] - dot[1]);
                        to_places[2 * one] = weights[one] * wide * by_x;
                        to_places[2 * one + 1] = weights[one] * high * by_y;
                    }
                    start += high * wide * H * D;
                }
            }
}

void forward(const float *value, const float *places, const float *weights, const int64_t *shapes, float *out,
             int64_t B, int64_t S, int64_t Q, int64_t H, int64_t L, int64_t P, int64_t D) {
    if (D == 32) forward_of(value, places, weights, shapes, out, B, S, Q, H, L, P, 32);
    else forward_of(value, places, weights, shapes, out, B, S, Q, H, L, P, D);
}

void backward(const float *value, const float *places, const float *weights, const int64_t *shapes, const float *up,
              float *to_value, float *to_places, float *to_weights,
              int64_t B, int64_t S, int64_t Q, int64_t H, int64_t L, int64_t P, int64_t D) {
    if (D == 32)
        backward_of(value, places, weights, shapes, up, to_value, to_places, to_weights, B, S, Q, H, L, P, 32);
    else
        backward_of(value, places, weights, shapes, up, to_value, to_places, to_weights, B, S, Q, H, L, P, D);
}
