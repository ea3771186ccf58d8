
/* ---- The other name of si_result ------------------------------------------------------------------------------- */

#ifndef si_status
/** The same as si_result, unless `<signal.h>`, which has a macro of this name, was included before. */
typedef si_result si_status;
#endif

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* STREAMINFER_H */
