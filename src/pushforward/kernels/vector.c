/* Vectors of the machine's width: WIDE of them a row keep its arithmetic units busy and its registers not too full. */

#include <stdint.h>

#if defined(__AVX512F__)
#define BYTES 64
#define WIDE 4
#elif defined(__AVX__)
#define BYTES 32
#define WIDE 2
#else
#define BYTES 16
#define WIDE 2
#endif
#define LANES ((int64_t)(BYTES / sizeof(REAL)))

typedef REAL vec __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#if SINGLE
typedef int32_t bits __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#else
typedef int64_t bits __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#endif

static inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }
