/* Sums of models in one pass over memory: each element is widened to float32, multiplied and added
   while it is in a register, and rounded once.

   The bits are those of `weighted_sum` in arithmetic.py, which does it where this was not built:
   one product and one sum after the other, each rounded to float32. Instructions that multiply and
   add in one rounding must not be used: it is built with -ffp-contract=off. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Float16 is widened and rounded by instructions of their own (F16C). Where a compiler or processor
   has none of them, there is nothing here that NumPy does not do as well. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define WITH_F16C
#include <immintrin.h>
#define WIDE __attribute__((target("avx2,f16c")))
#define INLINE static inline __attribute__((always_inline))
#endif

enum {
    INTERFACE = 1, /* as arithmetic.py knows it */
    MOST = 64,     /* terms of one sum */
    STRIDE = 32,   /* elements that are summed together, in registers that do not wait for another */
    LANES = 8      /* elements of a register */
};

typedef struct {
    const uint8_t *at;
    float factor;
    int dtype;
} Term;

/* Names of dtypes, as arguments have them, and bytes of an element. */
enum { F16 = 'h', BF16 = 'b', F32 = 'f' };

static int width(const int dtype)
{
    return dtype == F32 ? 4 : dtype == F16 || dtype == BF16 ? 2 : 0;
}

#if defined(WITH_F16C)

INLINE WIDE __m256 widened(const uint8_t *at, const int dtype)
{
    if (dtype == F32)
        return _mm256_loadu_ps((const float *)at);
    const __m128i halves = _mm_loadu_si128((const __m128i *)at);
    if (dtype == F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

INLINE WIDE void round_to(uint8_t *out, const int dtype, const __m256 value)
{
    if (dtype == F32) {
        _mm256_storeu_ps((float *)out, value);
        return;
    }
    if (dtype == F16) {
        _mm_storeu_si128((__m128i *)out, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
        return;
    }
    /* To nearest, ties to even: half of the last place is added, less one bit where that is even. */
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
    const __m256i near = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    /* Every NaN has the one pattern that torch gives it. */
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i whole = _mm256_or_si256(near, _mm256_srli_epi32(nan, 16));
    _mm_storeu_si128((__m128i *)out, _mm_packus_epi32(_mm256_castsi256_si128(whole),
                                                      _mm256_extracti128_si256(whole, 1)));
}

/* STRIDE elements from `offset` on. */
INLINE WIDE void stride(const Term *terms, const int count, uint8_t *out, const int dtype,
                        const size_t offset)
{
    __m256 totals[STRIDE / LANES];
    for (int t = 0; t < count; t++) {
        const Term *term = terms + t;
        const size_t nbytes = (size_t)width(term->dtype);
        const __m256 factor = _mm256_set1_ps(term->factor);
        for (int i = 0; i < STRIDE / LANES; i++) {
            const uint8_t *at = term->at + (offset + (size_t)i * LANES) * nbytes;
            const __m256 product = _mm256_mul_ps(widened(at, term->dtype), factor);
            totals[i] = t ? _mm256_add_ps(totals[i], product) : product;
        }
    }
    for (int i = 0; i < STRIDE / LANES; i++)
        round_to(out + (offset + (size_t)i * LANES) * (size_t)width(dtype), dtype, totals[i]);
}

static WIDE void sum(const Term *terms, const int count, uint8_t *out, const int dtype,
                     const size_t numel)
{
    const size_t whole = numel / STRIDE * STRIDE, rest = numel - whole;
    for (size_t at = 0; at < whole; at += STRIDE)
        stride(terms, count, out, dtype, at);
    if (!rest)
        return;
    /* Registers must not read or write past an end, so the last elements are summed in copies. */
    uint8_t ends[MOST][STRIDE * 4], made[STRIDE * 4];
    Term last[MOST];
    for (int t = 0; t < count; t++) {
        const size_t nbytes = (size_t)width(terms[t].dtype);
        memset(ends[t], 0, sizeof ends[t]);
        memcpy(ends[t], terms[t].at + whole * nbytes, rest * nbytes);
        last[t] = (Term){ends[t], terms[t].factor, terms[t].dtype};
    }
    stride(last, count, made, dtype, 0);
    memcpy(out + whole * (size_t)width(dtype), made, rest * (size_t)width(dtype));
}

static int usable(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
}

#else

static void sum(const Term *terms, const int count, uint8_t *out, const int dtype,
                const size_t numel)
{
    (void)terms, (void)count, (void)out, (void)dtype, (void)numel;
}

static int usable(void) { return 0; }

#endif

/* ---- For Python ---- */

static PyObject *py_weighted_sum(PyObject *self, PyObject *args)
{
    Py_buffer factors, dtypes, out, inputs[MOST];
    Term terms[MOST];
    PyObject *blocks, *result = NULL;
    int taken = 0, dtype;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*O!w*C", &factors, &dtypes, &PyTuple_Type, &blocks, &out,
                          &dtype))
        return NULL;
    const Py_ssize_t count = PyTuple_Size(blocks);
    if (!usable() || count < 1 || count > MOST || dtypes.len != count ||
        factors.len != count * (Py_ssize_t)sizeof(float) || !width(dtype) ||
        out.len % width(dtype))
        goto unfit;
    const Py_ssize_t numel = out.len / width(dtype);
    for (; taken < count; taken++) {
        Term *term = terms + taken;
        Py_buffer *input = inputs + taken;
        if (PyObject_GetBuffer(PyTuple_GetItem(blocks, taken), input, PyBUF_SIMPLE))
            goto done;
        term->dtype = ((const uint8_t *)dtypes.buf)[taken];
        term->at = input->buf;
        memcpy(&term->factor, (const uint8_t *)factors.buf + taken * (Py_ssize_t)sizeof(float),
               sizeof(float));
        if (!width(term->dtype) || input->len != numel * width(term->dtype)) {
            PyBuffer_Release(input);
            goto unfit;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    sum(terms, (int)count, out.buf, dtype, (size_t)numel);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
    goto done;
unfit:
    PyErr_SetString(PyExc_ValueError, "blocks that cannot be summed here");
done:
    while (taken)
        PyBuffer_Release(inputs + --taken);
    PyBuffer_Release(&factors);
    PyBuffer_Release(&dtypes);
    PyBuffer_Release(&out);
    return result;
}

static PyMethodDef methods[] = {
    {"weighted_sum", py_weighted_sum, METH_VARARGS,
     "weighted_sum(factors, dtypes, blocks, out, dtype)"},
    {NULL, NULL, 0, NULL}};

static int fill_module(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) ||
        PyModule_AddIntConstant(module, "MOST", MOST))
        return -1;
    return PyModule_AddIntConstant(module, "USABLE", usable());
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill_module}, {0, NULL}};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                 "_sums",
                                 "Weighted sums of floats in one pass; see arithmetic.py.",
                                 0,
                                 methods,
                                 slots,
                                 NULL,
                                 NULL,
                                 NULL};

PyMODINIT_FUNC PyInit__sums(void) { return PyModuleDef_Init(&definition); }
