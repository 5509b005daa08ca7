slmc_test(report_test unit/report_test.cpp LIBS slmc_report)
