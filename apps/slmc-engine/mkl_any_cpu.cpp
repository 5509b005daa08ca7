// MKL asks this function whether the CPU is of the make it was tuned for, and leaves its AVX-512 kernels unused when it is not: on Zen 5
// that halves the speed of fp32 products (111 against 250 GFLOP/s per core). An executable's own definition comes before MKL's. It is an
// undocumented name, so engine/kernels.cpp measures the products against fp64 at every start and can take oneDNN instead.
extern "C" int mkl_serv_intel_cpu_true() { return 1; }
