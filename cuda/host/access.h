/* Opens the device's memory to the thread that runs a kernel or copies, and closes it again. */
#ifndef CT_CUDA_HOST_ACCESS_H
#define CT_CUDA_HOST_ACCESS_H

void ct_host_open();
void ct_host_close();

#endif
