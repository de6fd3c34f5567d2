; Enters a program with the registers of a State (cpu.hpp) by IRETQ; leave_state returns from enter_state.
bits 64
section .text
global enter_state, leave_state, entering_iret
enter_state:
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        mov [saved_rsp], rsp
        mov ds, [rdi + 12 * 8]
        mov es, [rdi + 13 * 8]
        mov fs, [rdi + 14 * 8]
        mov gs, [rdi + 15 * 8]
        push qword [rdi + 11 * 8] ; SS
        push qword [rdi + 4 * 8]  ; RSP
        push qword [rdi + 9 * 8]  ; RFLAGS
        push qword [rdi + 10 * 8] ; CS
        push qword [rdi + 8 * 8]  ; RIP
        mov rax, [rdi]
        mov rcx, [rdi + 8]
        mov rdx, [rdi + 2 * 8]
        mov rbx, [rdi + 3 * 8]
        mov rbp, [rdi + 5 * 8]
        mov rsi, [rdi + 6 * 8]
        mov r8, [rdi + 16 * 8]
        mov r9, [rdi + 17 * 8]
        mov r10, [rdi + 18 * 8]
        mov r11, [rdi + 19 * 8]
        mov r12, [rdi + 20 * 8]
        mov r13, [rdi + 21 * 8]
        mov r14, [rdi + 22 * 8]
        mov r15, [rdi + 23 * 8]
        mov rdi, [rdi + 7 * 8]
entering_iret:
        iretq

; By IRETQ, which also opens the way for the next NMI.
leave_state:
        mov ecx, 0x10
        mov rsp, [saved_rsp]
        push rcx
        push qword [saved_rsp]
        push 2
        push 8
        push .here
        iretq
.here:  mov ds, ecx
        mov es, ecx
        mov ss, ecx
        xor ecx, ecx
        mov fs, ecx
        mov gs, ecx
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        ret

section .bss
saved_rsp: resq 1
alignb 16
        resb 8192
global stack0_top
stack0_top:
