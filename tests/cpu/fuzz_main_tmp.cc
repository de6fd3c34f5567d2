#include "tests/cpu/fuzz.hpp"
#include <cstdlib>
using namespace transom; using namespace transom::cpu_test;
int main(int argc,char**argv){ Campaign c; c.mode= argc>1&&atoi(argv[1])==32?Mode::bits32:Mode::bits64; if(argc>2)c.cases=strtoull(argv[2],0,0); if(argc>3)c.seed=strtoull(argv[3],0,0); if(argc>4)c.kind=(Kind)atoi(argv[4]);
 auto f=run_campaign(c); printf("%s\nslots %zu compared %lu completed %lu failures %lu\n%s\n",f.report.c_str(),slots(c.mode).size(),f.compared,f.completed,f.failures,f.unavailable.c_str());
 auto&s=slots(c.mode); int unc=0; for(size_t n=0;n<s.size();n++) if(!f.slot_completed[n] && !(always_faults(s[n])&&f.slot_compared[n])) { if(unc++<80) printf("uncovered %s (%u)\n",s[n].name().c_str(),f.slot_compared[n]);} printf("%d uncovered\n",unc);}
